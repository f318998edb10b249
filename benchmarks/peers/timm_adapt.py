"""What people write with timm: SOURCE MODEL OUTPUT, one input channel."""

import sys

import timm
from safetensors.torch import save_file

source, name, output = sys.argv[1:]
# `checkpoint_path` does not adapt conv1 (it fails on the shape); the file of a pretrained configuration does.
model = timm.create_model(name, pretrained=True, in_chans=1, pretrained_cfg_overlay={"file": source})
save_file(model.state_dict(), output)
