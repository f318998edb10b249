"""What people should know of a network before they use it, one line each: worked out from its manifest alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resnet_surgeon.architecture.spec import STEM_WEIGHT, Architecture
from resnet_surgeon.arithmetic.formulas import AreaResampled, Average, FoldedInputWeight, Mean, Mix, Repeat, Scaled
from resnet_surgeon.errors import listed
from resnet_surgeon.manifest import Computed, Kept, Manifest, Provenance, TensorRecord, Trained
from resnet_surgeon.operations import channels as reading
from resnet_surgeon.operations.normalization import statement


def notes_of(manifest: Manifest) -> tuple[str, ...]:
    """The notes on the network that the manifest is about, whatever notes it has."""
    return (
        *_on_responses(manifest),
        *_on_statistics(manifest.tensors),
        *_on_preprocessing(manifest),
        *_on_rounding(manifest.operations),
        *_on_inference(manifest.architecture),
    )


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


def _on_responses(manifest: Manifest) -> Iterator[str]:
    """bn1 subtracts and divides by what the old conv1 gave, until it is trained anew."""
    tensors = manifest.tensors
    statistics = tensors.get("bn1.running_mean")
    if statistics is None or isinstance(statistics.provenance, Trained) or STEM_WEIGHT not in tensors:
        return
    provenance = tensors[STEM_WEIGHT].provenance
    response = _response(provenance)
    if response is None or math.isclose(*response, rel_tol=1e-9):
        return
    yield (
        f"on images whose channels are alike, conv1 responds with {_share(*response)} of the size that bn1 expects; "
        f"`--{'scale response' if _is_mix(provenance) else 'init scaled'}` keeps the size"
    )


def _on_statistics(tensors: Mapping[str, TensorRecord]) -> Iterator[str]:
    """The mean of several networks' statistics is not that of what the mean network's layers give."""
    if any(name.endswith("running_mean") and _is_averaged(record.provenance) for name, record in tensors.items()):
        yield (
            "the batch norms' running statistics are means of several networks', and fit this one only roughly: let it "
            "see some batches in training mode, as `torch.optim.swa_utils.update_bn` does"
        )


def _is_averaged(provenance: Provenance) -> bool:
    return isinstance(provenance, Computed) and (
        isinstance(provenance.formula, Average) or any(map(_is_averaged, provenance.inputs))
    )


def _share(numerator: float, denominator: float) -> str:
    """`4/3`; where the numbers are not whole a decimal fraction."""
    if not math.isclose(numerator, round(numerator), rel_tol=1e-9):
        return f"{numerator / denominator:.3g}"
    whole = round(numerator), int(denominator)
    common = math.gcd(*whole)
    above, below = (number // common for number in whole)
    return f"{above}/{below}" if below > 1 else f"{above}"


def _response(provenance: Provenance) -> tuple[float, int] | None:
    """How large the responses are to an image whose channels are all alike, against those of the source's filters, as
    numerator and denominator (importing fractions takes longer than the rest); None if that does not follow from the
    records. Of a mix it is so if the old channels respond alike; what is drawn counts nothing.
    """
    if isinstance(provenance, Kept):
        return 1, 1
    if not isinstance(provenance, Computed):
        return None
    formula = provenance.formula
    if not isinstance(formula, Mean | Scaled | Repeat | Mix | FoldedInputWeight | AreaResampled):
        return None
    response = _response(provenance.inputs[0])
    if response is None:
        return None
    if isinstance(formula, Mean):
        return response[0] * formula.new, response[1] * formula.old
    if isinstance(formula, Mix):
        old = formula.parts[0] if formula.parts else formula.old
        return response[0] * math.fsum(weight for row in formula.matrix for weight in row[:old]), response[1] * old
    return response


def _is_mix(provenance: Provenance) -> bool:
    if isinstance(provenance, Computed) and isinstance(provenance.formula, FoldedInputWeight):
        return _is_mix(provenance.inputs[0])
    return isinstance(provenance, Computed) and isinstance(provenance.formula, Mix)


def _on_preprocessing(manifest: Manifest) -> Iterator[str]:
    """Mean and std were known of the source, and of some channel are not since."""
    if manifest.inputs.preprocessing is not None or manifest.source.weights in (None, "random"):
        return
    options = [record["adapt"] for record in manifest.operations if "adapt" in record]
    for lost in filter(None, map(_unknown, options)):
        yield (
            f"mean and std of {listed(lost)} are not known, so the manifest no longer says how images are prepared; "
            f"`adapt ... {statement(lost)}` states them"
        )
        return


def _unknown(options: Mapping[str, Any]) -> list[str]:
    """The channels that begin as nothing, or a difference."""
    made = [reading.read(item) for item in options.get("channels") or ()]
    return [
        str(index) if channel.name is None else channel.name
        for index, channel in enumerate(made)
        if channel.word in ("zero", "random") or any(weight < 0 for _, weight in channel.terms)
    ]
