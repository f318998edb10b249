"""Sound files of every kind that the tool makes, drawn at random, and lies told of them: for tests and `make prove`."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision.models.resnet import BasicBlock, Bottleneck

import resnet_surgeon as rs
from resnet_surgeon.network import Network
from resnet_surgeon.sources import catalog
from tests.fixtures import small_network

State = dict[str, torch.Tensor]
KEY = "resnet_surgeon.manifest"
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass
class Sound:
    """A file just made, its source and a file in between, the sources besides, and how torch is to run when it is
    verified.
    """

    path: Path
    source: Path
    middle: Path | None
    others: list[Path]
    threads: int
    is_onednn: bool
    is_published: bool
    story: list[str] = field(default_factory=list)

    def verify(self, path: Path | bytes, against: Path | bytes | None) -> rs.Proof:
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with (
                _onednn(self.is_onednn),
                published_as(self.source if self.is_published else None),
            ):
                given = None if against is None else [against, *self.others]
                return rs.verify(path, against=given)
        finally:
            torch.set_num_threads(threads)


@contextlib.contextmanager
def _onednn(is_enabled: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32")  # which nobody asked for
        with torch.backends.mkldnn.flags(enabled=is_enabled):
            yield


@contextlib.contextmanager
def published_as(path: Path | None) -> Iterator[None]:
    """The catalogue has the digest of this file for the published one of its name."""
    if path is None:
        yield
        return
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    entries = tuple(replace(e, digest=digest) if e.file_name == path.name else e for e in catalog.entries())
    with mock.patch.object(catalog, "entries", return_value=entries):
        yield


def sound(seed: int, folder: Path) -> Sound:
    """The same for the same seed."""
    draw = random.Random(seed)
    story = [f"seed {seed}"]
    source = _source(draw, folder, story)
    is_published = source.parent.name == "published"
    with published_as(source if is_published else None):
        path, middle, others = _operated(draw, source, folder, story)
    if draw.random() < 0.3:
        story.append("manifest written again")
        rewrite(path)
    threads, is_onednn = draw.choice([1, 2, 3]), draw.random() < 0.5
    story.append(f"{threads} threads, oneDNN {'on' if is_onednn else 'off'}")
    return Sound(path, source, middle, others, threads, is_onednn, is_published, story)


# The source.


def _source(draw: random.Random, folder: Path, story: list[str]) -> Path:
    is_published = draw.random() < 0.3
    state = _state(draw, is_published, story)
    _cast(draw, state, story)
    for damage in draw.sample(sorted(DAMAGES), draw.choice([0, 0, 1, 2])):
        story.append(damage)
        DAMAGES[damage](draw, state)
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    if is_published:
        story.append("published")
        path = folder / "published" / draw.choice(catalog.entries()).file_name
        path.parent.mkdir()
        torch.save(state, path)
        return path
    packing = draw.choice(sorted(PACKINGS))
    story.append(packing)
    state = PACKINGS[packing](state)
    container = draw.choice(sorted(CONTAINERS))
    story.append(container)
    return CONTAINERS[container](state, folder)


def _state(draw: random.Random, is_published: bool, story: list[str]) -> State:
    block = draw.choice([BasicBlock, Bottleneck])
    depths = tuple(draw.choice([1, 1, 2]) for _ in STAGES)
    groups, width = draw.choice([(1, 64), (1, 64), (4, 16), (2, 8)]) if block is Bottleneck else (1, 64)
    channels, classes = draw.choice([3, 3, 3, 1, 2, 7]), draw.choice([1, 2, 10])
    if is_published:
        channels, classes = 3, 1000
    model = small_network(
        block,
        depths,
        in_channels=channels,
        classes=classes,
        groups=groups,
        width_per_group=width,
        seed=draw.randrange(99),
    )
    state = model.state_dict()
    stages = draw.choice([1, 1, 2, 2, 3, 4])
    for stage in STAGES[stages:]:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(stage)}
    features = 64 * 2 ** (stages - 1) * (4 if block is Bottleneck else 1)
    state["fc.weight"] = torch.randn(classes, features)
    if draw.random() < 0.2 and not is_published:
        del state["fc.weight"], state["fc.bias"]
    story.append(
        f"{block.__name__} {depths[:stages]}, {groups} groups of {width}, {channels} channels, {classes} classes"
    )
    return dict(state)


def _cast(draw: random.Random, state: State, story: list[str]) -> None:
    kind = draw.choice(["one dtype", "one dtype", "fc", "mixed"])
    dtype = draw.choice(DTYPES)
    story.append(f"{kind}: {dtype}")
    for name, tensor in state.items():
        if tensor.is_floating_point() and (kind != "fc" or name.startswith("fc.")):
            state[name] = tensor.to(draw.choice(DTYPES) if kind == "mixed" else dtype)


def _some(draw: random.Random, state: State, ending: str = "weight") -> torch.Tensor:
    """One of the tensors, often the first convolution."""
    names = [name for name in state if name.endswith(ending) and state[name].is_floating_point()]
    return state[draw.choice([names[0], draw.choice(names)])]


def _fill(tensor: torch.Tensor, value: float) -> None:
    tensor.view(-1)[tensor.numel() // 2] = value


def _payload(draw: random.Random, state: State) -> None:
    """Not-a-number with bits of its own, where there are 16 of them."""
    for tensor in state.values():
        if tensor.dtype in (torch.float16, torch.bfloat16):
            bits = 0x7D01 if tensor.dtype == torch.float16 else 0x7F81
            tensor.view(-1).view(torch.int16)[0] = bits
            return


def _opponent(draw: random.Random, state: State) -> None:
    """Filters whose channels cancel."""
    weight = state["conv1.weight"]
    weight.copy_((weight.double() - weight.double().mean(1, keepdim=True)).to(weight.dtype))


def _dead(draw: random.Random, state: State) -> None:
    for name in ("bn1.weight", "bn1.bias"):
        state[name].zero_()


def _scale(draw: random.Random, state: State, exponent: int) -> None:
    tensor = _some(draw, state)
    tensor.mul_(2.0 ** min(exponent, 15) if tensor.dtype == torch.float16 else 2.0**exponent)


def _denormal(draw: random.Random, state: State) -> None:
    tensor = _some(draw, state)
    info = torch.finfo(tensor.dtype)
    tensor.copy_((tensor.double().sign() * info.smallest_normal * info.eps * 5).to(tensor.dtype))


Damage = Callable[[random.Random, State], Any]
DAMAGES: dict[str, Damage] = {
    "a filter of zeros": lambda draw, state: _some(draw, state)[0].zero_(),
    "a layer of zeros": lambda draw, state: _some(draw, state).zero_(),
    "an fc of zeros": lambda draw, state: [t.zero_() for name, t in state.items() if name.startswith("fc.")],
    "dead features": _dead,
    "denormals": _denormal,
    "nan": lambda draw, state: _fill(_some(draw, state), float("nan")),
    "inf": lambda draw, state: _fill(_some(draw, state), float("inf")),
    "negative zeros": lambda draw, state: _some(draw, state).zero_().neg_(),
    "negative variance": lambda draw, state: _fill(_some(draw, state, "running_var"), -1.0),
    "payload": _payload,
    "opponent colours": _opponent,
    "huge": lambda draw, state: _scale(draw, state, 120),
    "tiny": lambda draw, state: _scale(draw, state, -130),
}
PACKINGS: dict[str, Callable[[State], State]] = {
    "plain": lambda state: state,
    "prefixed": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "without counters": lambda state: {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")},
    "segmentation": lambda state: {
        **{f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")},
        "classifier.4.weight": torch.zeros(21, 4),
    },
}


def _sharded(state: State, folder: Path) -> Path:
    names = sorted(state)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: state[name] for name in members}, folder / shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: shard for shard, names in shards.items() for name in names}}))
    return index


def _torch(state: Any, folder: Path, **how: Any) -> Path:
    torch.save(state, folder / "source.pth", **how)
    return folder / "source.pth"


def _safetensors(state: State, folder: Path) -> Path:
    save_file(state, folder / "source.safetensors")
    return folder / "source.safetensors"


CONTAINERS: dict[str, Callable[[State, Path], Path]] = {
    "safetensors": _safetensors,
    "zip": _torch,
    "zip under a key": lambda state, folder: _torch({"state_dict": state, "epoch": 3}, folder),
    "channels last": lambda state, folder: _torch(
        {n: t.to(memory_format=torch.channels_last) if t.dim() == 4 else t for n, t in state.items()}, folder
    ),
    "legacy": lambda state, folder: _torch(state, folder, _use_new_zipfile_serialization=False),
    "sharded": _sharded,
}

# What is done to it.


def _operated(
    draw: random.Random, source: Path, folder: Path, story: list[str]
) -> tuple[Path, Path | None, list[Path]]:
    """The file, one on the way to it, and those that operations took. Stages of a pipe hand on bytes."""
    network = rs.open(source.read_bytes() if draw.random() < 0.3 and "index" not in source.name else source)
    middle = None
    others: list[Path] = []
    for number in range(draw.choice([0, 1, 1, 2, 3])):
        taken: list[Path] = []
        if draw.random() < 0.3:
            taken = [_another(draw, network, folder / f"other{number}{letter}.safetensors") for letter in "ab"]
            operation, taken = draw.choice(JOINS)(draw, taken)
        else:
            operation = draw.choice(OPERATIONS)(draw)
        try:
            network = operation[1](network)
        except (rs.OperationError, rs.UsageError):
            continue
        except rs.ArchitectureError:  # a state_dict that does not say enough
            if not taken:
                raise
            continue
        story.append(operation[0])
        others += taken
        if draw.random() < 0.4:
            middle = network.save(folder / f"middle{number}.safetensors")
            network = rs.open(middle.read_bytes() if draw.random() < 0.5 else middle)
    return network.save(folder / "file.safetensors"), middle, others


def _another(draw: random.Random, network: Network, path: Path) -> Path:
    """A file of the same network with other numbers: one of this tool, or a state_dict that knows nothing of it."""
    network.save(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = {name: tensor.flip(0).contiguous() if tensor.dim() else tensor for name, tensor in load_file(path).items()}
    if draw.random() < 0.5:
        metadata = {"format": "pt"}
        path.with_suffix(".json").unlink()
    save_file(state, path, metadata=metadata)
    return path


Operation = tuple[str, Callable[[Network], Network]]


def _adapt(draw: random.Random) -> Operation:
    options = {
        "in_channels": draw.choice([1, 1, 2, 3, 5, 13]),
        "init": draw.choice(["mean", "scaled", "repeat", "random"]),
        "seed": draw.randrange(9),
    }
    return f"adapt {options}", lambda network: network.adapt(**options)


def _channels(draw: random.Random) -> Operation:
    made = ["0", "N=0", "T=mean", "D=zero", "X=random", "Y=0.25*0+1.5*1", "Z=-0.5*0"]
    options: dict[str, Any] = {"channels": draw.sample(made, draw.choice([1, 2, 4])), "seed": draw.randrange(9)}
    options["scale"] = draw.choice(["keep", "response"])
    if draw.random() < 0.5:
        count = len(options["channels"])
        options |= {"mean": [0.25 * draw.randrange(4)] * count, "std": [draw.choice([0.2, 1.0, 3.0])] * count}
        options["fold_normalization"] = draw.random() < 0.7
    return f"adapt {options}", lambda network: network.adapt(**options)


def _remove_last(draw: random.Random) -> Operation:
    last = draw.randrange(1, 9)
    return f"remove last {last}", lambda network: network.remove(last=last)


def _remove_layers(draw: random.Random) -> Operation:
    layers = draw.sample(["maxpool", "layer1.1", "layer2.1", "layer1.0"], draw.choice([1, 2]))
    return f"remove {layers}", lambda network: network.remove(layers=layers)


def _heads(draw: random.Random) -> Operation:
    classes = [draw.choice([1, 2, 5]) for _ in range(draw.choice([1, 2, 3]))]
    own = draw.choice([None, "none", "layer1", "layer2"])
    seed = draw.randrange(9)
    return f"heads {classes} {own}", lambda network: network.heads(classes, own=own, seed=seed)


def _depth(draw: random.Random) -> Operation:
    blocks, keep = [draw.choice([1, 1, 2, 3]) for _ in range(draw.choice([1, 2, 4]))], draw.choice(["norm", "last"])
    return f"depth {blocks} {keep}", lambda network: network.depth(blocks, keep)


def _rich_heads(draw: random.Random) -> Operation:
    def head(name: str) -> dict[str, Any]:
        hidden = draw.choice([[], [], [3], [4, 2]])
        return {
            "name": name,
            "classes": draw.choice([1, 2, 5]),
            "own": draw.choice([None, "none"]),
            "pool": draw.choice(["avg", "max", "avgmax", "gem"]),
            "hidden": hidden,
            "activation": draw.choice(["relu", "gelu"]) if hidden else "relu",
            "dropout": draw.choice([0.0, 0.5]),
            "bias": draw.random() < 0.7,
            "init": draw.choice(["default", "zero", "small"]),
        }

    heads, add = [head(name) for name in draw.choice(["a", "bc"])], draw.random() < 0.5
    return f"heads {heads} {add}", lambda network: network.heads(head=heads, add=add)


def _remove_head(draw: random.Random) -> Operation:
    name = draw.choice("ab")
    return f"remove head {name}", lambda network: network.remove(layers=[f"heads.{name}"])


def _stem(draw: random.Random) -> Operation:
    options: dict[str, Any] = {
        "kernel": draw.choice([1, 3, 5, 9]),
        "stride": draw.choice([None, 1, 2]),
        "maxpool": draw.choice([None, "none", "torchvision", "caffe"]),
        "init": draw.choice(["crop", "area", "random"]),
        "seed": draw.randrange(9),
    }
    return f"stem {options}", lambda network: network.stem(**options)


def _dilate(draw: random.Random) -> Operation:
    output_stride = draw.choice([4, 8, 16, 32])
    return f"dilate {output_stride}", lambda network: network.dilate(output_stride)


def _features(draw: random.Random) -> Operation:
    layers = draw.sample(["relu", "maxpool", "layer1", "layer2", "heads.head1.layer2"], draw.choice([1, 2, 3]))
    names = [f"map{number}" for number in range(len(layers))]
    return f"features {layers}", lambda network: network.features(layers, names)


def _cast_network(draw: random.Random) -> Operation:
    dtype, keep_norm = draw.choice(["float16", "bfloat16", "float32", "float64"]), draw.random() < 0.5
    return f"cast {dtype} {keep_norm}", lambda network: network.cast(dtype, keep_norm)


Joined = tuple[Operation, list[Path]]  # and the other networks that it takes


def _average(draw: random.Random, others: list[Path]) -> Joined:
    taken = others[: draw.choice([1, 2])]
    weights = [draw.choice([1.0, 2.0, 0.3]) for _ in (0, *taken)] if draw.random() < 0.5 else None
    story = f"average {[other.name for other in taken]} {weights}"
    return (story, lambda network: network.average([*taken], weights)), taken


def _graft(draw: random.Random, others: list[Path]) -> Joined:
    layers = draw.choice([["fc"], ["layer1"], ["conv1", "bn1"], ["layer2", "fc"], ["heads.head1"], ["heads.a"]])
    head = draw.choice([None, "grafted"]) if layers[-1] == "fc" or layers[0].startswith("heads") else None
    story = f"graft {layers} as {head}"
    return (story, lambda network: network.graft(others[0], layers, head)), others[:1]


JOINS: tuple[Callable[[random.Random, list[Path]], Joined], ...] = (_average, _graft, _graft)
OPERATIONS: tuple[Callable[[random.Random], Operation], ...] = (
    _adapt,
    _adapt,
    _channels,
    _remove_last,
    _remove_layers,
    _heads,
    _heads,
    _rich_heads,
    _remove_head,
    _stem,
    _dilate,
    _features,
    _cast_network,
    _depth,
    lambda draw: ("fuse", lambda network: network.fuse()),
)

# What may happen to a manifest on its way, and what may not.


def rewrite(path: Path, edit: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    """The file with its manifest as another JSON writer writes it: 1.0 as 1, the keys in another order."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    manifest = json.loads(metadata[KEY])
    edit(manifest)
    text = json.dumps(_integral(manifest))
    save_file(load_file(path), path, metadata={**metadata, KEY: text})
    path.with_suffix(".json").write_text(text, "utf-8")


def _integral(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _integral(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [*map(_integral, value)]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class Lie:
    """What is said, and the word by which verify has to name it."""

    name: str
    word: str
    tell: Callable[[dict[str, Any]], None]


def lies(manifest: dict[str, Any]) -> Iterator[Lie]:
    """Every lie that can be told of a file with this manifest, each in one field."""
    architecture = manifest["architecture"]

    def put(name: str, word: str, *path: str | int, value: Any) -> Lie:
        def tell(document: dict[str, Any]) -> None:
            place: Any = document
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = value

        return Lie(name, word, tell)

    stride = "conv1" if architecture["bottleneck_stride"] == "conv2" else "conv2"
    word = "architecture.bottleneck_stride"
    yield put("bottleneck_stride", word, "architecture", "bottleneck_stride", value=stride)
    is_identity = not architecture["maxpool_is_identity"]
    word = "architecture.maxpool_is_identity"
    yield put("maxpool", word, "architecture", "maxpool_is_identity", value=is_identity)
    word = "architecture.stem_stride"
    yield put("stem_stride", word, "architecture", "stem_stride", value=architecture["stem_stride"] + 1)
    if "maps" in architecture:
        others = [{**architecture["maps"][0], "name": "another"}, *architecture["maps"][1:]]
        yield put("maps", "architecture.maps", "architecture", "maps", value=others)
    for index, stage in enumerate(architecture["stages"]):
        for name in ("dilation", "first_dilation"):
            word = f"architecture.stages[{index}].{name}"
            yield put(name, word, "architecture", "stages", index, name, value=stage[name] + 1)
    for number, head in enumerate(architecture["heads"]):
        for index, stage in enumerate(head["stages"]):
            word = f"architecture.heads[{number}].stages[{index}].dilation"
            path = ("architecture", "heads", number, "stages", index, "dilation")
            yield put("dilation of a head", word, *path, value=stage["dilation"] + 1)
    for number, head in enumerate(architecture["heads"]):
        place, where = ("architecture", "heads", number), f"architecture.heads[{number}]"
        pool = head.get("pool", "avg")
        if not architecture["avgpool"] and pool != "gem":  # which has a tensor
            yield put("pool", f"{where}.pool", *place, "pool", value="max" if pool == "avg" else "avg")
        for index, layer in enumerate(head.get("hidden", [])):
            if layer["kind"] == "activation":
                yield put("activation", f"{where}.hidden", *place, "hidden", index, "function", value="elu")
        if "labels" in head:
            others = [f"label {number}" for number in range(head["classes"])]
            yield put("labels", f"{where}.labels", *place, "labels", value=others)
    if architecture["avgpool"] and architecture.get("pool", "avg") != "gem":
        pool = "max" if architecture.get("pool", "avg") == "avg" else "avg"
        yield put("pool", "architecture.pool", "architecture", "pool", value=pool)
    preprocessing = copy.deepcopy(manifest["inputs"]["preprocessing"])
    if preprocessing is None:
        ones = [0.5] * manifest["inputs"]["channels"]
        preprocessing = {"mean": ones, "std": ones, "resize_size": 9, "crop_size": 9, "interpolation": "bilinear"}
    else:
        yield put("no preprocessing", "inputs.preprocessing", "inputs", "preprocessing", value=None)
        preprocessing["std"][-1] += 0.001
    yield put("preprocessing", "inputs.preprocessing", "inputs", "preprocessing", value=preprocessing)
    names = [f"other{index}" for index in range(manifest["inputs"]["channels"])]
    yield put("channel names", "inputs.channel_names", "inputs", "channel_names", value=names)
    for index, output in enumerate(manifest["outputs"]):
        word = f"outputs[{index}].categories"
        if output["categories"] is not None:
            others = [*reversed(output["categories"])]
            yield put("categories", word, "outputs", index, "categories", value=others)
        elif output["classes"]:
            made_up = [f"class {number}" for number in range(output["classes"])]
            yield put("categories", word, "outputs", index, "categories", value=made_up)


def manifest_of(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return dict(json.loads(file.metadata()[KEY]))


def renamed(path: Path, folder: Path) -> Path:
    """A copy under a name that says nothing."""
    copied = folder / "renamed.bin"
    shutil.copy(path, copied)
    return copied
