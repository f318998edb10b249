"""What the paths of all its modules, which torch notes beside a state_dict, say of a network: which layers it has that
hold no tensors.

The paths alone are noted, no class and no attribute: only what follows from a name, or from its absence, is concluded.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import ArchitectureError, printable
from resnet_surgeon.formats.modules import StateDictNode
from resnet_surgeon.sources.modules import AS_TORCHVISION

_LONGEST_PATH = 1000  # characters
_MOST_DIGITS = 9  # of two numbers in a Sequential
_ACTIVATION = r"((out|final|last|post|first|second|third)_?)?(re_?lu|act(ivation)?|non_?linearity)(_?\w{1,10})?"
# What passes on what a block gives it, at least in inference, or is a ReLU.
_IN_BLOCK = re.compile(
    rf"(?i){_ACTIVATION}|drop\w*|stochastic_depth|identity|downsample|shortcut|residual|skip\w*|add\w*|aa|(de)?quant\w*"
    r"|ff\d*|float_functional"
)
_FOLDED = re.compile(r"(?i)(bn|norm)_?\d?")  # what is left of a norm in the convolution before it
_NO_MAXPOOL = re.compile(rf"(?i){_ACTIVATION}|\w*(avg_?pool|global_pool)\d?|gap|fc|head|classifier|flat(ten)?|drop\w*")
_ONE_LAYER = re.compile(rf"(?i){_ACTIVATION}|max_?pool\d?")
_NO_MEAN = re.compile(rf"(?i){_ACTIVATION}|max_?pool\d?|drop\w*")
_AROUND = re.compile(r"(?i)(\w*_)?((log_?)?soft_?max|sigmoid|(instance_?)?norm|normali[sz](e|er|ation))_?\d*")
_WRAPPERS = {"module", "_orig_mod"}  # in which a network is called, and nothing else
_IN_THE_WAY = re.compile(r"(?i)(\w*_)?(attn|attention|simam|gem(_?pool(ing)?)?|layer5|non_?local)_?\d*")


@dataclass(frozen=True)
class Bare:
    """The modules of a network that hold no tensors, by their paths in the file: those of its blocks, and all others,
    whose names begin with `scope`; and those `around` it, if no other module there has tensors either, and so no larger
    model; and those `behind` its classifier in a Sequential. `inserted` are those in a Sequential where torchvision has
    none. `last` is the last stage.
    """

    scope: str
    in_blocks: tuple[str, ...]
    others: tuple[str, ...]
    around: tuple[str, ...] | None
    behind: tuple[str, ...]
    inserted: tuple[str, ...]
    last: str

    def check(self) -> None:
        """Raises ArchitectureError for one that its name tells to compute what no layer of torchvision's does there."""
        for path in self.in_blocks:
            if not _IN_BLOCK.fullmatch(_own(path)):
                raise _in_the_way(path)
        for path in self.others:
            name = path.removeprefix(self.scope)
            if "." not in name and _IN_THE_WAY.fullmatch(name):
                raise _in_the_way(path)
        for path in self.around or ():
            place, number = _numbers(path, self.scope)
            if _AROUND.fullmatch(_own(path)) or (number is not None and number < place):
                raise _in_the_way(path)
        for path in (*self.behind, *self.inserted):
            raise _in_the_way(path)

    @property
    def is_row(self) -> bool:
        """Whether its stages are members of a Sequential, which calls them and nothing else."""
        return _own(self.last).isdecimal()

    @property
    def has_no_pooling(self) -> bool:
        """Whether no module, in it or around it, can be what pools its last map."""
        if self.around is None or not all(part.isdecimal() or part in _WRAPPERS for part in self.scope.split(".")[:-1]):
            return False
        return not any(_may_pool(path, self.last) for path in (*self.others, *self.around))

    @property
    def has_no_maxpool(self) -> bool:
        """Whether none can be its maxpool, so that its forward calls a function or does without."""
        return all(_NO_MAXPOOL.fullmatch(_own(path)) for path in self.others)


def bare(node: StateDictNode, names: Mapping[str, str], scope: str) -> Bare | None:
    """The modules without tensors of the network whose tensors have these `names` in the file, by torchvision's.

    None where the paths are not those of the network's modules, as when its tensors were renamed.
    """
    paths = {*filter(_is_path, node.paths)}
    if not _around(names.values()) <= paths:
        return None
    filled = {"", *_around(filter(_is_path, node))}
    found = [path for path in paths - filled if path.startswith(scope) and path.rpartition(".")[0] in filled]
    *_, last = "", *_blocks(dict(sorted(names.items())))
    blocks = {*_blocks(names)} - {""}
    is_alone = filled == {"", *_around(names.values())}
    ends = [name for ours, name in names.items() if ours.startswith("fc.")]
    classifier = {path for path in _around(ends) if len(path) >= len(scope)}
    is_fused = not any(ours.endswith(".running_mean") for ours in names)
    inside = tuple(f"{path}." for path in blocks | classifier)
    end = max(ends, key=lambda name: (len(name), name), default="")
    behind = (path for path in paths - filled if (place := _numbers(path, end))[1] is not None and place[1] > place[0])
    bare_blocks = (path for path in found if path.rpartition(".")[0] in blocks)
    return Bare(
        scope,
        tuple(sorted(path for path in bare_blocks if not (is_fused and _FOLDED.fullmatch(_own(path))))),
        tuple(sorted(path for path in found if not path.startswith(inside))),
        tuple(sorted(path for path in paths - filled if not path.startswith(scope))) if is_alone else None,
        tuple(sorted(behind)) if is_alone else (),
        tuple(sorted(_inserted(paths - filled, names, {*blocks, scope.rstrip(".")}, is_fused))),
        last.rpartition(".")[0],
    )


def _inserted(paths: Iterable[str], names: Mapping[str, str], owners: set[str], is_fused: bool) -> Iterator[str]:
    """Of the paths of modules without tensors, the members of a Sequential that is a stage, a shortcut (where nothing
    is left of a norm that was folded away), or several layers where torchvision has one, in a block or in the stem.
    """
    rows: defaultdict[str, set[str]] = defaultdict(set)  # by their paths, whose they are
    for ours, name in names.items():
        parts, path = ours.split("."), name.rpartition(".")[0]
        if parts[2:] == ["conv1", "weight"]:
            rows[_within(_within(path))].add(parts[0])
        elif parts[2:] == ["downsample", "0", "weight"] and not is_fused:
            rows[_within(path)].add(ours)
    members = [path for path in paths if _own(path).isdecimal()]
    layers = Counter(_within(path) for path in members)
    for path in members:
        row = _within(path)
        is_layer = layers[row] > 1 and _within(row) in owners and _ONE_LAYER.fullmatch(_own(row))
        if row and (len(rows.get(row, ())) == 1 or is_layer):
            yield path


def _numbers(path: str, other: str) -> tuple[int, int | None]:
    """Where the other path and this one stand in the Sequential that both are in; None for this where there is none."""
    around, _, own = path.rpartition(".")
    begin = f"{around}." if around else ""
    within = other[len(begin) :].partition(".")[0] if other.startswith(begin) else ""
    are_numbers = own.isdecimal() and within.isdecimal() and len(own + within) < _MOST_DIGITS
    return (int(within), int(own)) if are_numbers else (0, None)


def _may_pool(path: str, last: str) -> bool:
    """Whether a module without tensors can pool what the last stage gives, by its name or its number."""
    place, number = _numbers(path, last)
    return not _NO_MEAN.fullmatch(_own(path)) if number is None else number > place


def _is_path(key: object) -> bool:
    return type(key) is str and len(key) <= _LONGEST_PATH


def _around(names: Iterable[str]) -> set[str]:
    """The paths of the modules that tensors are in, and of all modules around those but the whole."""
    found: set[str] = set()
    for name in names:
        path = name.rpartition(".")[0]
        while path and path not in found:
            found.add(path)
            path = path.rpartition(".")[0]
    return found


def _blocks(names: Mapping[str, str]) -> Iterator[str]:
    """The path of each block in the file: what the names of its convolutions have in common."""
    for ours, name in names.items():
        if ours.startswith("layer") and ours.endswith(".conv1.weight"):
            other = names.get(ours.replace(".conv1.", ".conv2."), "")
            pairs = zip(name.split("."), other.split("."), strict=False)
            yield ".".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _own(path: str) -> str:
    return path.rpartition(".")[2]


def _within(path: str) -> str:
    return path.rpartition(".")[0]


def _in_the_way(path: str) -> ArchitectureError:
    return ArchitectureError(
        f"the data passes through {printable(path)}, a layer without tensors that torchvision's ResNets do not have",
        answers=[AS_TORCHVISION],
    )
