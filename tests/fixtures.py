"""Networks of a few blocks, made by torchvision and saved as people save; and the command as a process."""

from __future__ import annotations

import copy
import ctypes
import gc
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import IO

import pytest

# Tests run side by side: threads within one only get into each other's way. It counts when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import save_file
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock, Bottleneck

from resnet_surgeon.arithmetic import sampling
from resnet_surgeon.sources import catalog
from resnet_surgeon.verification import activations, forward
from tests import PATIENCE
from tests.drawing import drawn_once
from tests.served import Server

# Networks come and go: the memory of one is kept for the next, which is quicker than asking the system for each page.
_MALLOPT = {-1: 1 << 29, -2: 1 << 26, -3: 1 << 25}  # <malloc.h>: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
if hasattr(ctypes.CDLL(None), "mallopt"):
    for parameter, size in _MALLOPT.items():
        ctypes.CDLL(None).mallopt(parameter, size)

# How long an example takes is the machine's affair.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Lets garbage be collected, which importing the command's main has turned off for processes that end soon; what
    the imports made stays, and need not be looked at again.
    """
    gc.freeze()
    gc.enable()


Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
Publish = Callable[[Path, str], Path]


def small_network(
    block: type[BasicBlock | Bottleneck] = BasicBlock,
    depths: tuple[int, ...] = (1, 1, 1, 1),
    *,
    in_channels: int = 3,
    classes: int = 10,
    groups: int = 1,
    width_per_group: int = 64,
    seed: int = 0,
) -> ResNet:
    """A torchvision ResNet in evaluation mode, with batch norms far from the identity: no two layers are alike."""
    torch.manual_seed(seed)
    drawn = _drawn(block, depths, in_channels, classes, groups, width_per_group, seed)  # type: ignore[arg-type]
    return copy.deepcopy(drawn)


@lru_cache(maxsize=12)  # drawing five million numbers takes ten times as long as copying them
def _drawn(
    block: type[BasicBlock | Bottleneck],
    depths: tuple[int, ...],
    in_channels: int,
    classes: int,
    groups: int,
    width_per_group: int,
    seed: int,
) -> ResNet:
    model = ResNet(block, list(depths), num_classes=classes, groups=groups, width_per_group=width_per_group)
    if in_channels != 3:
        model.conv1 = torch.nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            for buffer, law in (("mean", torch.nn.init.normal_), ("var", torch.nn.init.uniform_)):
                law(module.get_buffer(f"running_{buffer}"), 0.5, 1.5)
            module.get_buffer("num_batches_tracked").fill_(7)
    return model.eval()


def images(channels: int = 3, size: int = 64, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session", autouse=True)
def small_batches() -> Iterator[None]:
    """`verify` runs networks on images; small ones show what these tests look for as well as large ones, as long as the
    last stage sees two pixels by two.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward, "_BATCHES", ((1, 33, 33), (2, 33, 48)))
        patch.setattr(activations, "_PROBE", (1, 33, 40))
        yield


@pytest.fixture(scope="session", autouse=True)
def numbers_drawn_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "sample", drawn_once)
        yield


@pytest.fixture(scope="session")
def basic() -> ResNet:
    return small_network(BasicBlock, (2, 1, 2, 1))


@pytest.fixture(scope="session")
def bottleneck() -> ResNet:
    return small_network(Bottleneck, (1, 2, 3, 1))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, basic: ResNet, bottleneck: ResNet) -> Path:
    """A folder with basic, bottleneck and narrow, which has bottlenecks of a quarter of the width, each as .safetensors
    and as .pth.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    narrow = small_network(Bottleneck, (1, 2, 3, 1), width_per_group=16)
    for name, model in (("basic", basic), ("bottleneck", bottleneck), ("narrow", narrow)):
        save_file(model.state_dict(), folder / f"{name}.safetensors", metadata={"format": "pt"})
        torch.save(model.state_dict(), folder / f"{name}.pth")
    return folder


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Makes a file in this process the published one of a model: the catalogue then has its digest."""

    def publish(path: Path, model: str) -> Path:
        default = catalog.entry(model, "DEFAULT")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        entries = tuple(replace(entry, digest=digest) if entry == default else entry for entry in catalog.entries())
        monkeypatch.setattr(catalog, "entries", lambda: entries)
        return path

    return publish


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def run(tmp_path: Path, server: Server) -> Run:
    """Runs `resnet-surgeon` as a process of its own, in an empty folder, with an empty weights cache and no network.

    Bytes come to its standard input through a pipe; a file is its standard input itself, read from where it stands.
    Python is started anew only for what it reads from the environment when it starts.
    """
    offline = {"TORCH_HOME": str(tmp_path / "torch"), "RESNET_SURGEON_MIRROR": "http://127.0.0.1:9"}

    def run(
        *arguments: str | Path, stdin: bytes | IO[bytes] | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        words, environment = [*map(str, arguments)], {**os.environ, **offline, **(env or {})}
        if not any(name.startswith(("PYTHON", "LC_")) for name in env or ()):
            return server.run(words, tmp_path, environment, stdin)
        return subprocess.run(
            [sys.executable, "-m", "resnet_surgeon", *words],
            input=stdin if isinstance(stdin, bytes) else None,
            stdin=None if isinstance(stdin, bytes) else stdin or subprocess.DEVNULL,
            capture_output=True,
            cwd=tmp_path,
            env=environment,
            timeout=PATIENCE,
        )

    return run
