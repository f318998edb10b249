"""What people should know of a network before they use it, one line each: worked out from its records alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resnet_surgeon.architecture.spec import STEM_WEIGHT, Architecture
from resnet_surgeon.arithmetic.formulas import AreaResampled, Mean, Repeat, Scaled
from resnet_surgeon.manifest import Computed, Kept, Provenance, TensorRecord, Trained


def notes(
    architecture: Architecture, tensors: Mapping[str, TensorRecord], operations: Sequence[Mapping[str, Any]] = ()
) -> tuple[str, ...]:
    """The notes on a network whose tensors came about as these records say, by these operations."""
    return (*_on_responses(architecture, tensors), *_on_rounding(operations), *_on_inference(architecture))


def _on_rounding(operations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of the last cast that rounded."""
    casts = [record["cast"] for record in operations if record.get("cast", {}).get("rounding")]
    for cast in casts[-1:]:
        rounding = cast["rounding"]
        zeros = f"; numbers that became zero: {rounding['zeros']:,}" if rounding.get("zeros") else ""
        worst = f"`{rounding['tensor']}` most, by {rounding['error']:.1e} of its largest number"
        yield f"rounding to {cast['dtype']} changed {worst}{zeros}"


def _on_inference(architecture: Architecture) -> Iterator[str]:
    if architecture.fused:
        yield "for inference: the batch norms are folded into the convolutions, and training cannot normalise any more"


def _on_responses(architecture: Architecture, tensors: Mapping[str, TensorRecord]) -> Iterator[str]:
    """bn1 subtracts and divides by what the old conv1 gave, until it is trained anew."""
    statistics = tensors.get("bn1.running_mean")
    if statistics is None or isinstance(statistics.provenance, Trained) or STEM_WEIGHT not in tensors:
        return
    response = _response(tensors[STEM_WEIGHT].provenance)
    if response is None or response[0] == response[1]:
        return
    common = math.gcd(*response)
    numerator, denominator = (number // common for number in response)
    factor = f"{numerator}/{denominator}" if denominator > 1 else f"{numerator}"
    yield (
        f"on images whose channels are alike, conv1 responds with {factor} of the size that bn1 expects; "
        "`--init scaled` keeps the size"
    )


def _response(provenance: Provenance) -> tuple[int, int] | None:
    """How large the responses are to an image whose channels are all alike, against those of the source's filters, as
    numerator and denominator (importing fractions takes longer than the rest); None if that does not follow from the
    records.
    """
    if isinstance(provenance, Kept):
        return 1, 1
    keeping = Mean | Scaled | Repeat | AreaResampled
    if not isinstance(provenance, Computed) or not isinstance(provenance.formula, keeping):
        return None
    response, formula = _response(provenance.inputs[0]), provenance.formula
    if response is None or not isinstance(formula, Mean):
        return response
    return response[0] * formula.new, response[1] * formula.old
