"""What both played systems need: modules that ask once, when they are imported, which system they are on."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

_ASKING = (
    "concurrent.futures", "ctypes", "email.message", "getpass", "http.client", "importlib.metadata", "multiprocessing",
    "numpy", "pathlib", "rich.console", "rich.progress", "shutil", "socket", "ssl", "subprocess", "tempfile", "typer",
    "urllib.request",
)  # fmt: skip


def import_what_asks(with_torch: bool = True) -> None:
    """Lets libraries find the system that they are really on."""
    for name in (*_ASKING, *["torchvision"] * with_torch):
        importlib.import_module(name)


def take_away(module: Any, names: Iterable[str]) -> None:
    """Removes what the system lacks."""
    for name in names:
        if hasattr(module, name):
            delattr(module, name)


def is_ours() -> bool:
    """Whether the package called the function that asks."""
    return str(sys._getframe(2).f_globals.get("__name__")).startswith("resnet_surgeon")


def is_by_tempfile() -> bool:
    """Whether Python's tempfile called the function that asks, which has its own way on each system."""
    return sys._getframe(2).f_globals.get("__name__") == "tempfile"


def journal(event: str) -> None:
    """Notes what was called in the file that JOURNAL names, if any."""
    if path := os.environ.get("JOURNAL"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{event}\n")


def run(platform: str) -> None:
    """Runs the command whose words were given; or `load FILE`, which prints what the network computes."""
    sys.platform = platform
    if held := os.environ.get("HOLD"):
        os.open(held, os.O_RDWR)
    if sys.argv[1] == "load":
        import torch

        import resnet_surgeon as rs

        with torch.no_grad():
            print(rs.load(sys.argv[2]).eval()(torch.ones(1, 1, 64, 64)).tolist())
        return
    from resnet_surgeon.cli.main import main

    main()


Call = Callable[..., Any]
