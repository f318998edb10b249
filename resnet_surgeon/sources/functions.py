"""Functions of torch on a tensor that goes through a forward: which of them are steps that a ResNet has, and which
leave it as it is.

Knows their options, and no text.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from resnet_surgeon.architecture.layers import maxpool_with
from resnet_surgeon.dataclass import dataclass

MEAN = "mean"
RELU = "relu"
FLATTEN = "flatten"
IDENTITY = "identity"
SEQUENCE = "sequence"
MAXPOOL = "maxpool="  # with its kind
_HALF = "half"  # of a mean over two axes, one after the other


@dataclass(frozen=True)
class Step:
    """What data passes: a layer or an operation by its name, and the line that says so."""

    what: str
    line: str


@dataclass(frozen=True, eq=False)
class Data:
    """A tensor: what the input has passed to become it."""

    steps: tuple[Step, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(step.what for step in self.steps)

    @property
    def is_pooled(self) -> bool:
        """Whether it has one number left for each channel."""
        return bool(self.steps) and self.steps[-1].what.startswith(MEAN)

    @property
    def is_positive(self) -> bool:
        """Whether a ReLU would leave it as it is: a ReLU, or a block that ends with one, came before any pooling."""
        before = itertools.dropwhile(lambda name: name.startswith((MEAN, _HALF, "max")), reversed(self.names))
        return next(before, "").startswith((RELU, "layer"))


@dataclass(frozen=True)
class Size:
    """The sizes of a tensor's four axes, or those of some."""

    data: Data
    axes: tuple[int, ...]


_SAME = {"contiguous", "clone", "detach", "to_dense", "requires_grad_"}  # methods that pass a tensor on


# The parameters of functions, behind the tensor, with their defaults where these matter.
_PARAMETERS: dict[str, dict[str, object]] = {
    RELU: {"inplace": False},
    "relu_": {},
    "dropout": {"p": 0.5, "training": True, "inplace": False},
    "dropout2d": {"p": 0.5, "training": True, "inplace": False},
    "max_pool2d": {
        "kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False,
    },
    "avg_pool2d": {"kernel_size": None, "stride": None, "padding": 0},
    "adaptive_avg_pool2d": {"output_size": None},
    "mean": {"dim": None, "keepdim": False},
    FLATTEN: {"start_dim": 0, "end_dim": -1},
    "squeeze": {"dim": None},
}  # fmt: skip


def options_of(name: str, values: list[object], named: dict[str, object]) -> dict[str, object] | None:
    """The options that a function was given, by name; None for those that it has not."""
    if name in ("view", "reshape"):
        shape = values[0] if len(values) == 1 and isinstance(values[0], tuple | list) else values
        return None if named else {"shape": tuple(shape)}
    if name in _SAME:
        return {}
    if name == "mean" and len(values) > 2 and all(type(value) is int for value in values[:2]):
        return None
    own = _PARAMETERS.get(name)
    if own is None or len(values) > len(own) or not named.keys() <= own.keys():
        return None
    return {**own, **dict(zip(own, values, strict=False)), **named}


def operation(data: Data, name: str, options: Mapping[str, object]) -> str | None:
    """The step that a function of torch is; None for one that is not followed."""
    if name != "mean" and data.names[-1:] and data.names[-1].startswith(_HALF):
        return None
    match name:
        case "relu" | "relu_":
            return RELU
        case "dropout" | "dropout2d":
            return IDENTITY if options["training"] is False else None
        case "max_pool2d":
            kernel, stride, padding, dilation = (
                _pair(options[key]) for key in ("kernel_size", "stride", "padding", "dilation")
            )
            pool = maxpool_with(kernel, stride, padding, dilation, options["ceil_mode"])
            return MAXPOOL + pool[0] if pool else None
        case "avg_pool2d":
            return _average(data, options)
        case "adaptive_avg_pool2d":
            return MEAN if _pair(options["output_size"]) == (1, 1) else None
        case "mean":
            return _mean(data, options["dim"], options["keepdim"])
        case "flatten":
            return FLATTEN if (options["start_dim"], options["end_dim"]) == (1, -1) else None
        case "squeeze":
            return FLATTEN if data.is_pooled and options["dim"] in (None, 2, 3, -1, -2) else None
        case "view" | "reshape":
            shape = options["shape"]
            return FLATTEN if data.is_pooled and isinstance(shape, tuple) and len(shape) == 2 else None
        case _:
            return IDENTITY if name in _SAME else None


def _pair(value: object) -> object:
    return value if isinstance(value, tuple) else tuple(value) if isinstance(value, list) else (value, value)


def _average(data: Data, options: Mapping[str, object]) -> str | None:
    """The mean over all places, or over a square of so many: `mean of 7`."""
    kernel, stride = options["kernel_size"], options["stride"]
    if options["padding"] != 0:
        return None
    parts = [kernel] if isinstance(kernel, Size) else [*kernel] if isinstance(kernel, tuple | list) else []
    if parts and all(isinstance(part, Size) and part.data is data for part in parts):
        axes = tuple(axis for part in parts for axis in part.axes)
        return MEAN if axes in ((2, 3), (2,), (3,)) else None
    pair = _pair(kernel)
    is_square = isinstance(pair, tuple) and len(pair) == 2 and pair[0] == pair[1] and type(pair[0]) is int
    if not is_square or (stride is not None and _pair(stride) != pair and _pair(stride) != (1, 1)):
        return None
    return f"{MEAN} of {pair[0]}"  # type: ignore[index]


def _mean(data: Data, dim: object, keeps: object) -> str | None:
    """The mean over both places' axes, at once or one after the other."""
    axes = {*(dim if isinstance(dim, tuple | list) else [dim])}
    if not axes <= {-1, -2, 2, 3} or not axes or type(keeps) is not bool:
        return None
    last = data.names[-1] if data.steps else ""
    in_four = {axis % 4 for axis in axes if isinstance(axis, int)}
    if not last.startswith(_HALF):
        return MEAN if len(in_four) == 2 else f"{_HALF} {in_four.pop()}{' kept' if keeps else ''}"
    if last.endswith("kept"):
        return MEAN if in_four | {int(last.split()[1])} == {2, 3} and len(in_four) == 1 else None
    return MEAN if axes in ({2}, {-1}) else None


def after(data: Data, step: Step) -> Data:
    """The data behind a step, which may leave it as it is."""
    what = step.what
    if what == IDENTITY or (what == RELU and data.is_positive) or (what == FLATTEN and data.is_pooled):
        return data
    is_second = what == MEAN and data.names[-1:] and data.names[-1].startswith(_HALF)
    return Data((*(data.steps[:-1] if is_second else data.steps), step))
