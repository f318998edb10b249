"""The house: rooms import downhill only, say what they are for, and cost nothing until they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import resnet_surgeon
from resnet_surgeon.operations import OPERATIONS

PACKAGE = Path(resnet_surgeon.__file__).parent
# From the foundations up: a room may import from rooms before it in this list, and from itself.
ROOMS = [
    "_version",
    "dataclass",
    "errors",
    "location",
    "platform",
    "fields",
    "arithmetic",
    "architecture",
    "formats",
    "sources",
    "operations",
    "upgrades",
    "manifest",
    "plan",
    "history",
    "overview",
    "writing",
    "network",
    "recipes",
    "inspection",
    "comparison",
    "module",
    "loading",
    "saving",
    "verification",
    "reporting",
    "__init__",
    "cli",
    "__main__",
]
MODULES = sorted(PACKAGE.rglob("*.py"))
HERE = Path(__file__).parent
PROGRAMS = {HERE / "hazards/faults.py", HERE / "verification/trial.py"}  # they go on for as long as they are told
TESTS = sorted({*HERE.rglob("*.py")} - PROGRAMS)


def room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(module: Path) -> set[str]:
    """The rooms whose modules this one imports, at its top or in a function."""
    rooms = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "resnet_surgeon":
            path = node.module.split(".")[1:]
            rooms |= {path[0]} if path else {alias.name if alias.name in ROOMS else "__init__" for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {"__init__" for alias in node.names if alias.name == "resnet_surgeon"}
    return rooms


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_downhill_only(module: Path) -> None:
    allowed = ROOMS[: ROOMS.index(room(module)) + 1]
    assert imported_rooms(module) <= set(allowed)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is_for(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text("utf-8")))


def packages_at_the_top(module: Path) -> set[str]:
    names = set()
    for node in ast.parse(module.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_only_modules_their_proofs_and_reports_import_torch_at_their_top() -> None:
    assert {room(module) for module in MODULES if "torch" in packages_at_the_top(module)} == {
        "module",
        "loading",
        "saving",
        "verification",
        "reporting",
    }


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `code`."""
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(process.stderr.split())


def loaded_by(code: str) -> set[str]:
    """The heavy packages among them."""
    return {"torch", "torchvision", "numpy", "pydantic", "rich"} & modules_after(code)


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import resnet_surgeon") == set()


def command(*arguments: str) -> str:
    return (
        "from resnet_surgeon.cli.commands import program\n"
        f"try: program({list(arguments)})({list(arguments)})\nexcept SystemExit: pass"
    )


def test_help_loads_neither_torch_nor_numpy() -> None:
    assert loaded_by(command("--help")) <= {"rich"}


def test_adapt_loads_nothing_heavy(checkpoints: Path, tmp_path: Path) -> None:
    assert (
        loaded_by(command("adapt", f"{checkpoints}/basic.pth", "--in-ch=1", f"-o{tmp_path}/out.safetensors")) == set()
    )


def test_small_heads_are_drawn_without_numpy(checkpoints: Path, tmp_path: Path) -> None:
    done = command("heads", f"{checkpoints}/basic.safetensors", "--classes=3,5", f"-o{tmp_path}/out.safetensors")
    assert loaded_by(done) == set()
    assert (tmp_path / "out.safetensors").exists()


def test_a_command_loads_its_own_operation_alone(checkpoints: Path, tmp_path: Path) -> None:
    done = command("remove", f"{checkpoints}/basic.safetensors", "--last=1", f"-o{tmp_path}/out.safetensors")
    loaded = {name.rpartition(".")[2] for name in modules_after(done) if name.startswith("resnet_surgeon.operations.")}
    assert loaded & {*OPERATIONS} == {"remove"}


def test_for_a_plain_file_nothing_is_loaded_that_reads_whole_modules(checkpoints: Path, tmp_path: Path) -> None:
    loaded = modules_after(
        command("remove", f"{checkpoints}/basic.safetensors", "--last=1", f"-o{tmp_path}/o.safetensors")
    )
    assert (tmp_path / "o.safetensors").exists()
    foreign = ("sources.modules", "sources.module_paths", "formats.modules", "formats.pickled")
    assert not loaded & {f"resnet_surgeon.{name}" for name in foreign}


def test_for_a_file_of_ours_nothing_is_loaded_that_looks_into_those_of_others(tmp_path: Path) -> None:
    resnet_surgeon.open("resnet18", weights="random").remove(last=7).save(tmp_path / "made.safetensors")
    loaded = modules_after(command("remove", f"{tmp_path}/made.safetensors", "--last=1", f"-o{tmp_path}/o.safetensors"))
    assert (tmp_path / "o.safetensors").exists()
    assert not loaded & {
        f"resnet_surgeon.{name}"
        for name in ("sources.wrappings", "sources.modules", "sources.doubts", "formats.pickled")
    }


def test_the_program_s_help_loads_no_operation() -> None:
    loaded = modules_after(command("--help"))
    assert "resnet_surgeon.cli.commands" in loaded
    assert not {name for name in loaded if name.startswith(("resnet_surgeon.operations.", "resnet_surgeon.sources"))}


@pytest.mark.parametrize("module", TESTS, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_no_test_looks_at_the_clock(module: Path) -> None:
    tree = ast.parse(module.read_text("utf-8"))
    names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names.isdisjoint({"time", "timeit", "datetime"})


def test_every_public_name_is_there() -> None:
    assert resnet_surgeon.__all__ == sorted(resnet_surgeon.__all__)
    for name in resnet_surgeon.__all__:
        assert getattr(resnet_surgeon, name)


def test_every_list_of_public_names_has_the_same_names() -> None:
    """Type checkers need the imports spelled out, and `from resnet_surgeon import *` the names."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    rooms = {
        alias.name: (node.module or "").removeprefix("resnet_surgeon.")
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {*rooms, "__version__"} == {*resnet_surgeon.__all__}
    assert {name: resnet_surgeon._ROOMS.get(name, "errors") for name in rooms} == rooms


def test_without_torch_load_says_which_extra_to_install() -> None:
    code = """
import sys
sys.modules["torch"] = None
import resnet_surgeon as rs
try: rs.load
except rs.DependencyError as error: print(error, error.hint)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch is not installed" in process.stdout
    assert "resnet-surgeon[torch]" in process.stdout
