"""Files from the Hugging Face hub, by its own library. Knows repositories, not what their files hold."""

from __future__ import annotations

import re

from resnet_surgeon.errors import DependencyError, UsageError, WeightsError
from resnet_surgeon.formats.files import OpenFile
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.sources.url import without_secrets

_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def open_hub(url: str, progress: Progress) -> OpenFile:
    """The file at `hf://owner/name[/file][@revision]`, by huggingface_hub with its cache, endpoint and token.

    Without a file: `model.safetensors`, its index, or `pytorch_model.bin`, whichever is there first. The shards that an
    index names are fetched too, so that they lie beside it. Raises DependencyError without huggingface_hub, UsageError,
    WeightsError, and CheckpointError for an index that names files elsewhere.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:/([^@?#]+))?(?:@([^@?#]+))?", url)
    if not match:
        hint = "write hf://owner/name[/file][@revision]"
        raise UsageError("the URL is not one of a file on the hub", subject="hf://", hint=hint)
    repository, file, revision = match.groups()
    for name in (file,) if file else _FILES:
        path = _from_hub(url, repository, name, revision, progress)
        if path is not None:
            opened = OpenFile.at(path)
            for shard in _shards(opened):
                beside = f"{name.rpartition('/')[0]}/{shard}".lstrip("/")
                if _from_hub(url, repository, beside, revision, progress) is None:
                    raise WeightsError(f"the repository has no {beside}, which its index names", subject=url)
            return opened
    raise WeightsError(f"the repository has no {file or ', no '.join(_FILES)}", subject=url)


def _shards(file: OpenFile) -> tuple[str, ...]:
    """The files that an index names; none for any other file."""
    from resnet_surgeon.formats import safetensors_index

    return safetensors_index.shards(file) if file.name.endswith(".index.json") else ()


def _from_hub(url: str, repository: str, name: str, revision: str | None, progress: Progress) -> str | None:
    """The path of a repository's file in the hub's cache, or None if the repository has no such file."""
    import logging

    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ModuleNotFoundError:
        hint = "pip install 'resnet-surgeon[hub]'"
        raise DependencyError("huggingface_hub is not installed", subject=url, hint=hint) from None
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what goes wrong is said once, below
    if progress is silent:
        disable_progress_bars()
    try:
        return hf_hub_download(repository, name, revision=revision)
    except LocalEntryNotFoundError:
        hint = "check the network, or `HF_ENDPOINT` and `HF_HUB_OFFLINE`"
        raise WeightsError("the hub cannot be reached, and its cache lacks the file", subject=url, hint=hint) from None
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise WeightsError(f"cannot download: {without_secrets(str(error).splitlines()[0])}", subject=url) from None
