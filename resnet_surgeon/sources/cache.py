"""Where downloaded weights are kept: torch's own cache, so that torch finds what was downloaded here."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where torch keeps published weights: the folder of `torch.hub.load_state_dict_from_url`."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"
