"""Whether two networks take the same images, so that what reads the images can pass from one to the other, or be mixed.
Knows no tensor.
"""

from __future__ import annotations

from resnet_surgeon.architecture.preprocessing import Preprocessing
from resnet_surgeon.errors import OperationError, listed
from resnet_surgeon.operations.channels import RGB
from resnet_surgeon.operations.checkpoint import Checkpoint


def check_same_images(one: Checkpoint, other: Checkpoint, label: str) -> None:
    """Raises OperationError where the channels are known to be others, or in another order, or to be normalised
    otherwise; and where one network takes images as they are, and nobody said so of the other. `label` says which
    network the other is.
    """
    mine, theirs = one.channels, other.channels
    names = ",".join(mine)
    if mine != theirs and _are_known(one) and _are_known(other):
        raise OperationError(
            f"{label} takes the channels {listed(theirs)}, SOURCE {listed(mine)}",
            hint=f"bring it to these first: `adapt ... --channels {names}`",
        )
    images, others = one.preprocessing, other.preprocessing
    if images and others and (images.mean, images.std) != (others.mean, others.std):
        raise OperationError(
            f"{label} takes images with mean {list(others.mean)} and std {list(others.std)}, SOURCE with mean "
            f"{list(images.mean)} and std {list(images.std)}",
            hint=f"fold both into the weights first: `adapt ... --channels {names} --fold-normalization`",
        )
    if _is_taken_as_is(images or others) and not (images and others):
        whole, open_one = (label, "SOURCE") if others else ("SOURCE", label)
        zeros, ones = (",".join([number] * len(one.channels)) for number in "01")
        raise OperationError(
            f"{whole} takes images from 0 to 1 as they are, and nobody said how those of {open_one} are normalised",
            hint=f"say it of {open_one} before: `adapt ... --channels {names} --mean {zeros} --std {ones}` if it takes "
            "them so too; else its own mean and std, with `--fold-normalization`",
        )


def _is_taken_as_is(images: Preprocessing | None) -> bool:
    """Whether nothing is subtracted from images, and nothing divides them, as where mean and std are folded in."""
    return images is not None and not any(images.mean) and {*images.std} == {1.0}


def _are_known(checkpoint: Checkpoint) -> bool:
    """Three channels that nobody named are red, green and blue."""
    return bool(checkpoint.channel_names) or checkpoint.channels == RGB
