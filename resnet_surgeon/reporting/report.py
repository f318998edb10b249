"""report: puts together what the page shows, and fills its template."""

from __future__ import annotations

import base64
import hashlib
import keyword
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup

from resnet_surgeon import manifest as records
from resnet_surgeon._version import __version__
from resnet_surgeon.architecture.differences import differences
from resnet_surgeon.architecture.outputs import IMAGE, outputs
from resnet_surgeon.architecture.parameters import parameters, trained
from resnet_surgeon.architecture.recognise import describe
from resnet_surgeon.architecture.spec import STEM_WEIGHT
from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import escaped
from resnet_surgeon.formats.tensors import LazyTensor, byte_size
from resnet_surgeon.history.opening import Opening
from resnet_surgeon.location import Location
from resnet_surgeon.manifest import Manifest, Provenance
from resnet_surgeon.module import to_torch
from resnet_surgeon.network import Network
from resnet_surgeon.overview import overview
from resnet_surgeon.plan import Action, Layout, Step
from resnet_surgeon.reporting import drawing, filters
from resnet_surgeon.sources.progress import Progress, silent
from resnet_surgeon.verification.case import Against, Case, open_case
from resnet_surgeon.verification.proof import Proof
from resnet_surgeon.verification.verify import prove

if TYPE_CHECKING:
    from typing_extensions import Unpack

_HERE = Path(__file__).parent
_LONGEST_MANIFEST = 1 << 22  # characters that are shown


@dataclass(frozen=True)
class TensorRow:
    """A line of the table. `verdict` is that of the check that the tensor's kind is proven by."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    fate: str
    origin: str
    verdict: str


def report(path: Location, *, against: Against = None, progress: Progress = silent, **opening: Unpack[Opening]) -> str:
    """One HTML page about a file of this tool: the network with what became of each layer, conv1's filters, every
    tensor, the proofs of `verify`, the manifest, and how to load it. It needs nothing from elsewhere.

    Takes the arguments of `verify` and raises its errors. A file that fails its proofs has a page that says so.
    """
    case = open_case(path, against, opening, progress)
    proof = prove(case)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    environment.filters["lines"] = _lines
    style, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html").render(
        name=os.path.basename(proof.output),
        proof=proof,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        version=__version__,
        manifest_text=_excerpt(case.document),
        **_network(case, proof),
    )


def _shown(value: object) -> object:
    """What stands on the page for a value: text with whatever is not seen, or turns the direction of reading, escaped.
    The page's own pieces are Markup.
    """
    return escaped(value) if type(value) is str else value


def _lines(text: str) -> Markup:
    """Text of several lines, each as it is shown."""
    return Markup("\n").join(map(escaped, text.split("\n")))


def _excerpt(manifest: str) -> str:
    """The manifest, or the beginning of one that is far longer than any that this tool writes."""
    more = len(manifest) - _LONGEST_MANIFEST
    return manifest if more <= 0 else f"{manifest[:_LONGEST_MANIFEST]}\n... and {more:,} characters more"


def _network(case: Case, proof: Proof) -> dict[str, object]:
    """What is said of the network, if its manifest can be relied on for that."""
    manifest = case.sound
    if manifest is None:
        return {"manifest": None}
    is_proven = any(check.name == "history" and check.outcome == "proven" for check in proof.checks)
    replayed = case.replayed if is_proven and isinstance(case.replayed, Network) else None
    steps = replayed.plan() if replayed else tuple(_recorded_steps(manifest, case.file.tensors))
    source = replayed.opened.architecture if replayed else None
    architecture = manifest.architecture
    conv1 = [(f"before: {replayed.label}", replayed.opened.tensors[STEM_WEIGHT])] if replayed else []
    conv1.append(("after", case.file.tensors[STEM_WEIGHT]))
    return {
        "manifest": manifest,
        "description": describe(architecture),
        "differences": differences(source, architecture) if source else (),
        "parameters": trained(architecture),
        "bytes": sum(byte_size(tensor) for tensor in case.file.tensors.values()),
        "drawing": drawing.drawing(overview(steps, source or architecture, architecture), architecture),
        "box_width": drawing.WIDTH,
        "box_height": drawing.HEIGHT,
        "filters": [(title, filters.pictures(to_torch(tensor))) for title, tensor in conv1],
        "rows": [*_rows(case, manifest, steps, proof)],
        "code": loading_code(manifest, proof.output),
    }


def _recorded_steps(manifest: Manifest, tensors: Mapping[str, LazyTensor]) -> Iterator[Step]:
    """The plan as far as the manifest alone tells it: of the source's tensors the names that they had there."""
    uses: dict[Provenance, int] = {}
    for record in manifest.tensors.values():
        uses[record.provenance] = uses.get(record.provenance, 0) + 1
    for name, tensor in tensors.items():
        provenance = manifest.tensors[name].provenance
        action: Action = provenance.how
        if isinstance(provenance, records.Kept) and provenance.source:
            action = "grafted"
        elif action == "kept" and uses[provenance] > 1:
            action = "copied"
        layout = Layout(tensor.dtype, tensor.shape, byte_size(tensor))
        yield Step(action, name, (name,), None, layout)
    for name in manifest.dropped:
        yield Step("dropped", name, (name,), None, None)


def _rows(case: Case, manifest: Manifest, steps: tuple[Step, ...], proof: Proof) -> Iterator[TensorRow]:
    checks = {check.name: check for check in proof.checks}
    actions = {step.name: step.action for step in steps if step.action != "dropped"}
    for parameter in parameters(manifest.architecture):
        tensor, provenance = case.file.tensors[parameter.name], manifest.tensors[parameter.name].provenance
        check = checks.get(provenance.how)
        verdict = check.outcome if check else "unproven"
        if check and verdict == "failed" and parameter.name not in check.tensors:
            verdict = "proven"
        yield TensorRow(
            name=parameter.name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            bytes=byte_size(tensor),
            fate=actions.get(parameter.name, provenance.how),
            origin=_origin(provenance),
            verdict=verdict,
        )
    for name in manifest.dropped:
        yield TensorRow(name, "", (), 0, "dropped", "", "")


def _origin(provenance: Provenance) -> str:
    if isinstance(provenance, records.Kept):
        return provenance.tensor if provenance.source == 0 else f"{provenance.tensor} of source {provenance.source}"
    if isinstance(provenance, records.Computed):
        return f"{provenance.formula}, of {', '.join(map(_origin, provenance.inputs))}"
    if isinstance(provenance, records.Trained):
        return f"trained since; it began as {_origin(provenance.began)}"
    return f"{provenance.law}, seed {provenance.seed}"


def loading_code(manifest: Manifest, output: str) -> str:
    """How to load the file and what to give it: Python to copy."""
    architecture, inputs = manifest.architecture, manifest.inputs
    given = outputs(architecture)
    names = [output.name for output in given]
    variables = ", ".join(_variables(names)) if architecture.branches else "maps" if architecture.maps else "output"
    shapes = ", ".join(f"{output.name!r}: " * bool(architecture.maps) + str([1, *output.shape]) for output in given)
    lines = [
        "import resnet_surgeon as rs  # pip install 'resnet-surgeon[torch]'",
        "import torch",
        "",
        f"model = rs.load({os.path.basename(output)!r}).eval()",
    ]
    image = f"torch.zeros(1, {architecture.in_channels}, {IMAGE}, {IMAGE})"
    if inputs.preprocessing:
        prepared = inputs.preprocessing
        lines[2:2] = ["from torchvision.transforms import v2"]
        size = [
            f"    v2.Resize({prepared.resize_size}, interpolation=v2.InterpolationMode({prepared.interpolation!r})),",
            f"    v2.CenterCrop({prepared.crop_size}),",
        ]
        lines += [
            "prepare = v2.Compose([",
            *(size if prepared.resize_size and prepared.crop_size and prepared.interpolation else []),
            "    v2.ToDtype(torch.float32, scale=True),",
            f"    v2.Normalize({list(prepared.mean)}, {list(prepared.std)}),",
            "])",
        ]
        image = f"prepare(torch.zeros(1, {architecture.in_channels}, 256, 256, dtype=torch.uint8))"
    lines.append(f"{variables} = model({image})  # {shapes}")
    return "\n".join(lines)


def _variables(names: Sequence[str]) -> Iterator[str]:
    """The names of heads as identifiers, none of them a word of Python's own."""
    for name in names:
        variable = name if name.isidentifier() else f"_{name}"
        while keyword.iskeyword(variable) or (variable != name and variable in names):
            variable += "_"
        yield variable


def _hash(text: str) -> str:
    """The digest by which a page's policy allows a style sheet or a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
