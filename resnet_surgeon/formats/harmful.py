"""Names that a pickle of weights never needs and an attack does: the lists of the scanners (picklescan, fickling,
modelscan) as one. Knows nothing of pickles.

Nothing that a file names is ever called here, so none of these would do harm. But whoever loads the same file with
`torch.load` or `pickle` would run it: such a file is refused by that name, not passed over.
"""

from __future__ import annotations

# Modules of which every name is refused, and those of their submodules.
_MODULES = frozenset(
    """
    os posix nt subprocess commands popen2 sys ctypes importlib imp runpy pkgutil zipimport shutil pty socket ssl
    http.client http.server httplib urllib.request urllib2 ftplib smtplib telnetlib socketserver xmlrpc aiohttp
    requests.api webbrowser asyncio bdb pdb code codeop pip ensurepip venv pydoc timeit trace profile cProfile doctest
    idlelib lib2to3 site
    pickle _pickle cPickle marshal numpy.f2py numpy.testing._private numpy.ctypeslib torch.hub torch.package
    torch.utils.bottleneck torch.utils.collect_env
    """.split()  # noqa: SIM905
)

_BUILTINS = frozenset(
    """
    eval exec execfile compile open file input raw_input __import__ reload apply breakpoint globals locals vars delattr
    setattr exit quit
    """.split()  # noqa: SIM905
)

# Of other modules, the names that are refused. `functools.partial` and `operator.itemgetter` are not among them: honest
# files hold them, and what they would call has a name of its own.
_NAMES = {
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,
    "_io": frozenset({"FileIO", "open", "open_code"}),
    "io": frozenset({"FileIO", "open", "open_code"}),
    "codecs": frozenset({"open"}),
    "operator": frozenset({"attrgetter", "methodcaller"}),
    "_operator": frozenset({"attrgetter", "methodcaller"}),
    "types": frozenset({"CodeType", "FunctionType"}),
    "logging": frozenset({"FileHandler"}),
    "logging.config": frozenset({"dictConfig", "fileConfig", "listen"}),
    "multiprocessing": frozenset({"Process"}),
    "multiprocessing.context": frozenset({"Process"}),
    "multiprocessing.util": frozenset({"spawnv_passfds"}),
    "signal": frozenset({"alarm", "pthread_kill", "raise_signal", "signal"}),
    "threading": frozenset({"Thread", "Timer"}),
    "distutils.file_util": frozenset({"copy_file", "move_file", "write_file"}),
    "distutils.spawn": frozenset({"spawn"}),
    "uuid": frozenset({"_get_command_stdout"}),
    "dill": frozenset({"load", "loads"}),
    "cloudpickle": frozenset({"load", "loads"}),
    "joblib": frozenset({"load"}),
    "pandas": frozenset({"read_pickle"}),
    "yaml": frozenset({"load", "load_all", "unsafe_load", "unsafe_load_all", "full_load"}),
    "numpy": frozenset({"load", "fromfile", "memmap"}),
    "torch": frozenset({"load"}),
    "torch.serialization": frozenset({"load"}),
    "torch.jit": frozenset({"load"}),
    "torch.ops": frozenset({"load_library"}),
    "torch.classes": frozenset({"load_library"}),
    "torch.utils.cpp_extension": frozenset({"load", "load_inline"}),
    "torch._dynamo.guards": frozenset({"GuardBuilder.get"}),
    "torch._inductor.codecache": frozenset({"compile_file"}),
    "torch.fx.experimental.symbolic_shapes": frozenset({"ShapeEnv.evaluate_guards_expression"}),
    "torch.jit.unsupported_tensor_ops": frozenset({"execWrapper"}),
    "torch.utils._config_module": frozenset({"ConfigModule.load_config"}),
    "torch.utils.data.datapipes.utils.decoder": frozenset({"basichandlers"}),
}

# Attributes by which an attack climbs from a harmless object to a harmful one.
_RUNGS = frozenset(
    """
    __globals__ __builtins__ __subclasses__ __class__ __bases__ __base__ __mro__ __dict__ __code__ __import__
    __getattribute__ __loader__ __spec__ __closure__ func_globals
    """.split()  # noqa: SIM905
)
# Modules that others have as an attribute: `torch.serialization.os` is `os`.
_REACHED = frozenset(("os", "posix", "nt", "sys", "subprocess", "importlib", "builtins", "shutil", "socket", "ctypes"))


def is_harmful(module: str, name: str) -> bool:
    """Whether only an attack needs what stands under this name of this module."""
    parts = module.split(".")
    if any(".".join(parts[:end]) in _MODULES for end in range(1, len(parts) + 1)):
        return True
    return name in _NAMES.get(module, ()) or any(map(is_harmful_attribute, name.split(".")))


def is_harmful_attribute(name: str) -> bool:
    """Whether only an attack takes this attribute of an object."""
    return name in _RUNGS or name in _REACHED
