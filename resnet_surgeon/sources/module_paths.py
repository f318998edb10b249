"""What the paths of all its modules, which torch notes beside a state_dict, say of a network: which layers it has that
hold no tensors.

The paths alone are noted, no class and no attribute: only what follows from a name, or from its absence, is concluded.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import ArchitectureError, printable
from resnet_surgeon.formats.modules import StateDictNode
from resnet_surgeon.sources.modules import AS_TORCHVISION

_LONGEST_PATH = 1000  # characters
_ACTIVATION = r"((out|final|last|post|first|second|third)_?)?(re_?lu|act(ivation)?|non_?linearity)(_?\w{1,10})?"
# What passes on what a block gives it, at least in inference, or is a ReLU.
_IN_BLOCK = re.compile(
    rf"(?i){_ACTIVATION}|drop\w*|stochastic_depth|identity|downsample|shortcut|residual|skip\w*|add\w*|aa|(de)?quant\w*"
    r"|ff\d*|float_functional"
)
_NO_MAXPOOL = re.compile(rf"(?i){_ACTIVATION}|\w*(avg_?pool|global_pool)\d?|gap|fc|head|classifier|flat(ten)?|drop\w*")
_IN_THE_WAY = re.compile(r"(?i)(\w*_)?(attn|attention|simam|gem(_?pool(ing)?)?|layer5|non_?local)_?\d*")


@dataclass(frozen=True)
class Bare:
    """The modules of a network that hold no tensors, by their paths in the file: those of its blocks, and all others.
    All names begin with `scope`.
    """

    scope: str
    in_blocks: tuple[str, ...]
    others: tuple[str, ...]

    def check(self) -> None:
        """Raises ArchitectureError for one that its name tells to compute what no layer of torchvision's does there."""
        for path in self.in_blocks:
            if not _IN_BLOCK.fullmatch(_own(path)):
                raise _in_the_way(path)
        for path in self.others:
            name = path.removeprefix(self.scope)
            if "." not in name and _IN_THE_WAY.fullmatch(name):
                raise _in_the_way(path)

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
    blocks = {*_blocks(names)} - {""}
    ends = [name for ours, name in names.items() if ours.startswith("fc.")]
    classifier = {path for path in _around(ends) if len(path) >= len(scope)}
    inside = tuple(f"{path}." for path in blocks | classifier)
    return Bare(
        scope,
        tuple(sorted(path for path in found if path.rpartition(".")[0] in blocks)),
        tuple(sorted(path for path in found if not path.startswith(inside))),
    )


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


def _in_the_way(path: str) -> ArchitectureError:
    return ArchitectureError(
        f"the data passes through {printable(path)}, a layer without tensors that torchvision's ResNets do not have",
        answers=[AS_TORCHVISION],
    )
