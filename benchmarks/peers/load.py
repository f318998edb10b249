"""Times `rs.load` and torchvision's building and loading of a state_dict, in turn: ADAPTED SOURCE MODEL RUNS."""

import sys
import time
from collections.abc import Callable

import torchvision
from safetensors.torch import load_file

import resnet_surgeon as rs

adapted, source, name, runs = sys.argv[1:]


def torchvision_load() -> object:
    model = torchvision.models.get_model(name)
    return model.load_state_dict(load_file(source))


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


for _ in range(int(runs) + 2):
    print(seconds(lambda: rs.load(adapted)), seconds(torchvision_load))
