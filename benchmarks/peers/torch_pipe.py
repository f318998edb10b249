"""adapt, remove and heads with torch and torchvision: SOURCE MODEL OUTPUT."""

import copy
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
heads = torch.nn.ModuleDict()
for index, classes in enumerate((3, 5), start=1):
    layers = {"layer4": copy.deepcopy(model.layer4), "fc": torch.nn.Linear(model.fc.in_features, classes)}
    heads[f"head{index}"] = torch.nn.ModuleDict(layers)
del model.layer4, model.fc
model.heads = heads
save_file(model.state_dict(), output)
