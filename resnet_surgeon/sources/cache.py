"""Where downloaded weights are kept: torch's own cache, so that torch finds what was downloaded here."""

from __future__ import annotations

import os
from pathlib import Path

from resnet_surgeon.errors import AccessError

OTHER_FOLDER = "set TORCH_HOME to a folder that can be written"


def cache_folder() -> Path:
    """Where torch keeps published weights: the folder of `torch.hub.load_state_dict_from_url`.

    Raises AccessError where that is in the home folder of somebody who has none.
    """
    named = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    home = os.path.expanduser(named)
    if home.startswith("~"):
        raise AccessError("there is no home folder", subject=named, hint=OTHER_FOLDER)
    return Path(home) / "hub" / "checkpoints"
