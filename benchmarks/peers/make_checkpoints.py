"""Writes MODEL.safetensors and MODEL.pth, as torchvision initialises them, into FOLDER: FOLDER MODEL ..."""

import sys
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file

folder, *names = sys.argv[1:]
for name in names:
    torch.manual_seed(0)
    state = torchvision.models.get_model(name).state_dict()
    save_file(state, Path(folder, f"{name}.safetensors"), metadata={"format": "pt"})
    torch.save(state, Path(folder, f"{name}.pth"))
