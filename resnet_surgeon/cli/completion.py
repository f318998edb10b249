"""What a shell offers while a command is typed: model names, weights, layers, and the words of a choice. Opens nothing.

Where nothing is offered, the shell offers files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resnet_surgeon.architecture.facts import KINDS
from resnet_surgeon.architecture.spec import STAGE_NAMES, STEM
from resnet_surgeon.architecture.variants import VARIANTS

Offer = Callable[[str], list[str]]

# Of options whose values have no type that lists them.
_KNOWN: dict[str, Sequence[str]] = {
    "weights": ("DEFAULT", "IMAGENET1K_V1", "IMAGENET1K_V2", "random"),
    "layers": (*STEM, *STAGE_NAMES, "avgpool", "fc", "heads"),
    "assume": tuple(KINDS),
}


def models(incomplete: str) -> list[str]:
    """The model names that begin so.

    >>> models("resnet1")
    ['resnet18', 'resnet101', 'resnet152']
    """
    return [name for name in VARIANTS if name.startswith(incomplete)] if incomplete else []


def offer(option: str, choices: Sequence[str]) -> Offer | None:
    """What completes an option's value: one of its choices, or of what is known of it; None where that is nothing.

    In a list the last item is completed: `layer4,av` to `layer4,avgpool`.
    """
    words = choices or _KNOWN.get(option, ())
    if not words:
        return None

    def completed(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{word}" for word in words if word.startswith(last)]

    return completed
