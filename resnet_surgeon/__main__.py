"""`python -m resnet_surgeon` is `resnet-surgeon`."""

from resnet_surgeon.cli.main import main

if __name__ == "__main__":
    main()
