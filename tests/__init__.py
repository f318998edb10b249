"""The tests. None depends on how fast the machine is: they count work, and wait for processes as long as it takes."""

PATIENCE = 1200  # seconds after which a process must be hanging, even on the busiest machine
