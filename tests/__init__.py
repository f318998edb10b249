"""The tests. None depends on how fast the machine is: they count work, and wait for processes as long as it takes."""

PATIENCE = 1200  # seconds after which a process must be hanging, even on the busiest machine

# What stands in a manifest's place that may be replaced: a manifest, of whatever version and however damaged.
OLD_MANIFEST = b'{"format_version": 1, "versions": {"resnet_surgeon": "0.1.0"}}'

TORCH = ("module", "loading", "saving", "verification", "reporting")  # the rooms that import it at their top
