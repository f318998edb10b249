"""What the few names stand for that tensors and plain data are made of: a closed list, each a few lines of our own.

Any other name becomes an `Opaque`. Knows nothing of the machine that reads pickles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resnet_surgeon.errors import CheckpointError
from resnet_surgeon.formats.harmful import is_harmful_attribute
from resnet_surgeon.formats.pickled import Global, Opaque, Parameter, Storage, View, put
from resnet_surgeon.formats.tensors import BITS, MOST_DIMENSIONS

STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "UntypedStorage": "U8",
    "ComplexDoubleStorage": "complex128", "QInt8Storage": "qint8", "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32", "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
}  # fmt: skip

# `torch.FloatTensor` and the like: the type that a tensor of 2016 had, which its storage tells as well.
_TENSORS = {name.replace("Storage", "Tensor") for name in STORAGES}

# torch's dtypes, by its names, that a tensor over bytes without a type may have.
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "complex64": "C64", "uint16": "U16", "uint32": "U32",
    "uint64": "U64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip


def construct(called: Global, arguments: tuple[Any, ...]) -> Any:
    """What a call of this name comes to. Raises TypeError or ValueError for arguments that it never has."""
    made = CONSTRUCTORS.get((called.module, called.name))
    return Opaque(called, arguments) if made is None else made(*arguments)


def is_known(module: str, name: str) -> bool:
    """Whether the name is one of those of which tensors and plain data are made."""
    return (
        (module, name) in CONSTRUCTORS
        or (module, name) in _ARRAYS
        or (
            module in ("torch", "torch.cuda", "torch.storage")
            and (name in STORAGES or name in _TENSORS or name in DTYPES or name == "Tensor")
        )
    )


# What numpy's arrays and torch's storages are made of where the pickle itself holds their bytes; `arrays` reads these.
_ARRAYS = {
    ("numpy", "ndarray"), ("numpy", "dtype"), ("joblib.numpy_pickle", "NumpyArrayWrapper"),
    ("torch.storage", "_load_from_bytes"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer"),
}  # fmt: skip


def storage_dtype(kind: object) -> str:
    """The dtype that a global such as `torch.FloatStorage` stands for. Raises TypeError for another."""
    if not isinstance(kind, Global) or kind.name not in STORAGES:
        raise TypeError
    return STORAGES[kind.name]


def _view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> View | Opaque:
    """`torch._utils._rebuild_tensor_v2`; what follows (requires_grad, hooks, metadata) does not matter here."""
    if type(storage) not in (Storage, Opaque) or type(shape) is not tuple or type(strides) is not tuple:
        raise TypeError
    if len(shape) > MOST_DIMENSIONS or len(strides) > MOST_DIMENSIONS:
        raise CheckpointError(
            f"its pickle holds a tensor of more than the {MOST_DIMENSIONS} dimensions that torch supports"
        )
    if {*map(type, (offset, *shape, *strides))} != {int}:
        raise TypeError
    return View(storage, offset, shape, strides)


def _view_of_bytes(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> View | Opaque:
    """`torch._utils._rebuild_tensor_v3`: the storage is bytes, and counted so; `offset` and strides count elements."""
    if type(storage) is Opaque:
        return storage
    if type(storage) is not Storage or type(dtype) is not Global or storage.dtype != "U8" or storage.part:
        raise TypeError
    if dtype.name not in DTYPES:
        return Opaque(dtype)
    name = DTYPES[dtype.name]
    return _view(Storage(name, storage.key, storage.count * 8 // BITS[name]), offset, shape, strides)


def _itself(tensor: Any, *_: Any) -> Any:
    """`torch._utils._rebuild_parameter`: a parameter is its tensor."""
    if type(tensor) not in (View, Opaque, Parameter):
        raise TypeError
    return tensor


def _with_attributes(function: Any, kind: Any, arguments: Any, _: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`: a tensor with attributes of its own, or one of a subclass, which may
    compute otherwise.
    """
    if type(function) is not Global or type(kind) is not Global or type(arguments) is not tuple:
        raise TypeError
    if (kind.module, kind.name) not in _PLAIN_TENSORS or function.module != "torch._utils":
        return Opaque(kind, arguments)
    return construct(function, arguments)


_PLAIN_TENSORS = {("torch", "Tensor"), ("torch.nn.parameter", "Parameter"), ("torch.nn.parameter", "Buffer")}


def _parameter(data: Any = None, *_: Any) -> Parameter:
    return Parameter(data)


def _dict(content: Any = None, *_: Any) -> dict[Any, Any]:
    """A dict of a dict, or of pairs, as Python 2 gave them to an `OrderedDict`."""
    made: dict[Any, Any] = {}
    if type(content) is dict:
        made.update(content)
    elif type(content) is list:
        if any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in content):
            raise TypeError
        put(made, [pair[0] for pair in content], [pair[1] for pair in content])
    elif content is not None:
        raise TypeError
    return made


def _defaultdict(_: Any = None, content: Any = None) -> dict[Any, Any]:
    return _dict(content)


def _items(items: Any = (), *_: Any) -> list[Any]:
    """A set or a deque, as the list of what it holds: nothing is hashed or compared."""
    if type(items) not in (list, tuple):
        raise TypeError
    return [*items]


def _latin1(text: Any = None, encoding: Any = None) -> bytes | Opaque:
    """How protocol 2 writes bytes; no other encoding is known."""
    if type(text) is str and encoding in ("latin1", "latin-1"):
        return text.encode("latin1")
    return Opaque(Global("_codecs", "encode"))


def _no_bytes(*arguments: Any) -> bytes | Opaque:
    """How protocol 2 writes no bytes."""
    return Opaque(Global("builtins", "bytes"), arguments) if arguments else b""


def _reconstructed(kind: Any, base: Any, state: Any) -> Any:
    """`copyreg._reconstructor`, of protocols 0 and 1: an object of this kind, which is a dict too if its base is."""
    if type(kind) is not Global or type(base) is not Global:
        raise TypeError
    made = Opaque(kind, (base, state))
    made.held = state if type(state) is dict else None
    return made


def _new(kind: Any, *arguments: Any) -> Any:
    """`copyreg.__newobj__`, of protocols 0 and 1."""
    if type(kind) is not Global or kind.module in ("copyreg", "copy_reg", "torch._tensor"):
        raise TypeError
    return construct(kind, arguments)


def _size(sizes: Any) -> tuple[Any, ...]:
    if type(sizes) is not tuple:
        raise TypeError
    return sizes


def _attribute(name: str) -> Callable[..., Opaque]:
    called = Global(name, "getattr")

    def taken(owner: Any, attribute: Any, *_: Any) -> Opaque:
        """`getattr`: how Python pickles a bound method, which is not looked up. Some are what attacks climb by."""
        if type(attribute) is not str or is_harmful_attribute(attribute):
            raise CheckpointError(
                f"refused: its pickle takes an attribute by `{name}.getattr` as only an attack does",
                hint="do not open it with torch.load, and get the weights from elsewhere",
            )
        return Opaque(called, (owner, attribute))

    return taken


CONSTRUCTORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _view,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch._utils", "_rebuild_tensor_v3"): _view_of_bytes,
    ("torch._utils", "_rebuild_parameter"): _itself,
    ("torch._utils", "_rebuild_parameter_with_state"): _itself,
    ("torch._tensor", "_rebuild_from_type_v2"): _with_attributes,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch.autograd.variable", "Variable"): _parameter,
    ("collections", "OrderedDict"): _dict,
    ("collections", "Counter"): _dict,
    ("collections", "defaultdict"): _defaultdict,
    ("collections", "deque"): _items,
    ("_codecs", "encode"): _latin1,
    **{("torch.jit._pickle", f"build_{kind}list"): _items for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): lambda value, *_: value,
    **{
        (module, name): made
        for module in ("copyreg", "copy_reg")
        for name, made in (("_reconstructor", _reconstructed), ("__newobj__", _new))
    },
    **{
        (module, name): made
        for module in ("builtins", "__builtin__")
        for name, made in (
            ("bytes", _no_bytes),
            ("dict", _dict),
            ("set", _items),
            ("frozenset", _items),
            ("list", _items),
            ("getattr", _attribute(module)),
        )
    },
}

# What a tensor is that is no plain array, by the name of what torch rebuilds it with.
KINDS = {
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_meta_tensor_no_storage": "a meta tensor, which has no data",
    "_rebuild_wrapper_subclass": "a tensor of a subclass",
    "_rebuild_nested_tensor": "a nested tensor",
}
