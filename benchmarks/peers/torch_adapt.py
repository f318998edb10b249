"""What people write with torch and torchvision: SOURCE MODEL OUTPUT, one input channel."""

import sys

import torch
import torchvision
from safetensors.torch import load_file, save_file

source, name, output = sys.argv[1:]
state = load_file(source) if source.endswith(".safetensors") else torch.load(source, weights_only=True)
model = torchvision.models.get_model(name)
model.load_state_dict(state)
conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
conv1.weight.data = model.conv1.weight.data.mean(1, keepdim=True)
model.conv1 = conv1
save_file(model.state_dict(), output)
