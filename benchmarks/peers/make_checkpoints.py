"""Writes MODEL.safetensors, MODEL.pth and other forms of torchvision's fresh networks: FOLDER MODEL ..."""

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
    torch.save(state, Path(folder, f"{name}-legacy.pth"), _use_new_zipfile_serialization=False)
    for key, tensor in state.items():
        if tensor.ndim == 4:
            state[key] = tensor.to(memory_format=torch.channels_last)
    torch.save(state, Path(folder, f"{name}-channels_last.pth"))
