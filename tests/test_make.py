"""What `make` promises on a new machine: an environment of the Python that was asked for, and a demo that can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import PATIENCE

TOP = Path(__file__).parents[1]
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make: install Debian's make")


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def fake_python(folder: Path, change: str = "pass") -> Path:
    """A `python3` that runs scripts after a change to itself; its environments lack pip, which takes long."""
    folder.mkdir(exist_ok=True)
    prelude = (
        "import runpy, sys, venv; create = venv.create; "
        "venv.create = lambda folder, **options: create(folder, **{**options, 'with_pip': False}); "
        f"{change}; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return script(folder / "python3", f'exec {sys.executable} -c "{prelude}" "$@"')


def make_environment(folder: Path, python: Path, *, named: bool = True) -> subprocess.CompletedProcess[str]:
    """Asks make for the environment alone, nothing installed into it: of the Python that is named, or found first."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    env["PATH"] = f"{python.parent}:{env['PATH']}"
    command = ["make", f"VENV={folder}", f"{folder}/made", *[f"PYTHON={python}"] * named]
    return subprocess.run(command, cwd=TOP, env=env, capture_output=True, text=True, timeout=PATIENCE)


UNFIT = {
    "too old": ("sys.version_info = (3, 9, 1)", "error: Python 3.9.1 is too old: resnet-surgeon needs 3.10 or newer"),
    "without ensurepip": ("sys.modules['ensurepip'] = None", "lacks ensurepip: on Debian, install python3-venv"),
    "failing halfway": ("venv.create = lambda folder, **_: (create(folder), 1 / 0)", "could not be made: division by"),
}


@needs_make
@pytest.mark.parametrize(("change", "reason"), UNFIT.values(), ids=UNFIT)
def test_a_python_that_will_not_do_is_refused_in_a_line_and_leaves_nothing(
    change: str, reason: str, tmp_path: Path
) -> None:
    done = make_environment(tmp_path / "venv", fake_python(tmp_path / "bin", change))
    assert done.returncode != 0
    message = done.stderr.splitlines()[0]
    assert message.startswith("error: ")
    assert reason in message
    assert message.endswith("; name another with `make ... PYTHON=python3.12`")
    assert not (tmp_path / "venv").exists()


@needs_make
def test_an_environment_is_kept_for_the_same_python_and_made_anew_for_another(tmp_path: Path) -> None:
    folder, marker = tmp_path / "venv", tmp_path / "venv" / "marker"
    python = fake_python(tmp_path / "bin")
    stranger = script(tmp_path / "stranger", "echo a stranger")
    other = fake_python(tmp_path / "other", f"sys.executable = '{stranger}'")
    assert make_environment(folder, python).returncode == 0
    marker.touch()
    for asked, named, is_kept in ((python, True, True), (other, False, True), (other, True, False)):
        assert make_environment(folder, asked, named=named).returncode == 0
        assert marker.exists() == is_kept


@needs_make
@pytest.mark.parametrize("damage", ["made", "bin/python"])
def test_a_damaged_environment_is_mended_unasked(damage: str, tmp_path: Path) -> None:
    """One that was not finished, and one whose Python is gone."""
    folder, python = tmp_path / "venv", fake_python(tmp_path / "bin")
    assert make_environment(folder, python).returncode == 0
    (folder / damage).unlink()
    if damage == "bin/python":
        (folder / damage).symlink_to("/nowhere")
    assert make_environment(folder, python, named=False).returncode == 0
    assert (folder / "made").exists()
    assert subprocess.run([folder / "bin" / "python", "-c", ""]).returncode == 0


@needs_make
def test_what_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "thesis.tex").touch()
    done = make_environment(folder, fake_python(tmp_path / "bin"))
    assert "is not a virtual environment: remove it, or" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def demo(folder: Path, commands: Path, **env: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    path = f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", TOP / "docs" / "demo.sh"],
        cwd=folder,
        env={**os.environ, "PATH": path, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_the_demo_runs_without_torch(tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    script(commands / "resnet-surgeon", f'exec {sys.executable} -m resnet_surgeon "$@"')
    (commands / "torch.py").write_text("raise ImportError")
    done = demo(tmp_path / "demo", commands, PYTHONPATH=f"{commands}:{TOP}")
    assert done.returncode == 0, done.stderr
    assert "The files are in" in done.stdout


@pytest.mark.parametrize("broken", [None, "adapt", "heads", "remove"])
def test_the_demo_fails_if_any_of_its_commands_fails(broken: str | None, tmp_path: Path) -> None:
    """Also one whose output is whole, at the front of a pipe. The commands do nothing here but fail or not."""
    commands = tmp_path / "bin"
    commands.mkdir()
    script(commands / "python", "cat > /dev/null")
    script(commands / "resnet-surgeon", "touch model.safetensors model.json", f'[ "$1" != "{broken}" ]')
    done = demo(tmp_path / "demo", commands)
    assert (done.returncode == 0) == (broken is None), done.stderr
    assert ("The files are in" in done.stdout) == (broken is None)
