"""Whose names the tensors of a file can have: the choice alone, so that a command line costs nothing to declare."""

from __future__ import annotations

from typing import Literal

# A library's; those of the source; or those, with all else that the network was packed in.
Names = Literal["torchvision", "timm", "transformers", "detectron2", "sequential", "original", "packed"]
