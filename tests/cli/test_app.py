"""The commands: what they write, what they print where, and how they fail."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load

import resnet_surgeon as rs
from resnet_surgeon.cli.app import app
from resnet_surgeon.cli.commands import SUMMARIES
from resnet_surgeon.operations import OPERATIONS
from tests.fixtures import Run, images

RANDOM = ["resnet18", "--weights", "random"]


def test_the_path_is_all_that_standard_output_gets(run: Run, tmp_path: Path) -> None:
    done = run("adapt", *RANDOM, "--in-ch", "1")
    assert (done.returncode, done.stdout) == (0, b"resnet18-random-in1.safetensors\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "resnet18-random-in1.json",
        "resnet18-random-in1.safetensors",
    ]


def test_the_summary_goes_to_standard_error(run: Run, checkpoints: Path) -> None:
    done = run("heads", checkpoints / "basic.pth", "--classes", "3,5")
    assert done.stderr.decode() == (
        "basic: ResNet with basic blocks 2-1-2-1, 3 input channels, 10 classes, 23.5 MiB\n"
        "  ┌─ stem ───┐ ┌─ layer1 ┐ ┌─ layer2 ┐ ┌─ layer3 ─┐ ┌╌ fc ╌╌╌╌╌┐\n"
        "  │ kept     │ │ kept    │ │ kept    │ │ kept     │ ╎ gone     ╎\n"
        "  │ 9.54 K   ├─┤ 148 K   ├─┤ 230 K   ├─┤ 2.10 M   ├╌┤ 5.13 K   ╎\n"
        "  │ 37.8 KiB │ │ 580 KiB │ │ 902 KiB │ │ 8.02 MiB │ ╎ 20.0 KiB ╎\n"
        "  └──────────┘ └─────────┘ └─────────┘ └──────────┘ └╌╌╌╌╌╌╌╌╌╌┘\n"
        "  ├─ head1 ─ layer4 copied 3.67 M 14.0 MiB ─ fc new 1.54 K 6.01 KiB ─ 3 classes\n"
        "  └─ head2 ─ layer4 copied 3.67 M 14.0 MiB ─ fc new 2.56 K 10.0 KiB ─ 5 classes\n"
        "  copied   heads.head1.layer4  18 tensors  14.0 MiB  from layer4\n"
        "  new      heads.head1.fc      2 tensors   6.01 KiB  [3, 512]: uniform(-0.0441942, 0.0441942), seed 0\n"
        "  copied   heads.head2.layer4  18 tensors  14.0 MiB  from layer4\n"
        "  new      heads.head2.fc      2 tensors   10.0 KiB  [5, 512]: uniform(-0.0441942, 0.0441942), seed 0\n"
        "  dropped  fc                  2 tensors   20.0 KiB\n"
        "basic-heads-3-5.safetensors: ResNet with basic blocks 2-1-2-1, 3 input channels, "
        "2 heads (head1: 3, head2: 5), 37.6 MiB\n"
    )


def test_quiet_says_nothing(run: Run, checkpoints: Path) -> None:
    assert run("adapt", checkpoints / "basic.pth", "--in-ch", "1", "-q").stderr == b""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_of_three_is_one_chain(run: Run, checkpoints: Path, tmp_path: Path, unbuffered: str) -> None:
    env = {"PYTHONUNBUFFERED": unbuffered} if unbuffered else None
    first = run("adapt", checkpoints / "bottleneck.pth", "--in-ch", "1", "-o", "-", env=env)
    second = run("remove", "-", "--last", "2", "-o", "-", stdin=first.stdout, env=env)
    third = run("heads", "-", "--classes", "3,5", "-o", "model.safetensors", stdin=second.stdout, env=env)
    assert third.stdout == b"model.safetensors\n", third.stderr
    chain = rs.open(checkpoints / "bottleneck.pth").adapt(1).remove(last=2).heads([3, 5])
    witness = chain.save(tmp_path / "chain.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == witness.read_bytes()
    assert (tmp_path / "model.json").read_bytes() == (tmp_path / "chain.json").read_bytes()
    assert [output.shape for output in rs.load(tmp_path / "model.safetensors")(images(1))] == [(2, 3), (2, 5)]


def test_the_end_of_a_pipe_names_its_file_after_the_whole_pipe(run: Run, checkpoints: Path) -> None:
    first = run("adapt", checkpoints / "basic.pth", "--in-ch", "1", "-o", "-")
    assert run("heads", "-", "--classes", "3", stdin=first.stdout).stdout == b"basic-in1-heads-3.safetensors\n"


@pytest.fixture
def no_temporary_files(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing can be put into an unnamed temporary file."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import tempfile\ntempfile.TemporaryFile = None\n")
    return {"PYTHONPATH": f"{folder}:{Path(__file__).parents[2]}"}


def source_of(manifest: Path) -> tuple[str, str, str]:
    source = json.loads(manifest.read_text("utf-8"))["source"]
    return source["file"], source["container"], source["sha256"]


def test_a_file_on_standard_input_is_read_in_place(
    run: Run, checkpoints: Path, tmp_path: Path, no_temporary_files: dict[str, str]
) -> None:
    arguments = ["adapt", "-", "--in-ch", "1", "-o", "out.safetensors"]
    with (checkpoints / "basic.pth").open("rb") as file:
        done = run(*arguments, stdin=file, env=no_temporary_files)
    assert done.returncode == 0, done.stderr
    data = (checkpoints / "basic.pth").read_bytes()
    assert source_of(tmp_path / "out.json") == ("standard input", "torch_zip", hashlib.sha256(data).hexdigest())
    assert run(*arguments, "--force", stdin=data, env=no_temporary_files).returncode == 3, (
        "a pipe needs a temporary file"
    )


def test_a_stage_of_a_pipe_takes_no_temporary_file(
    run: Run, checkpoints: Path, no_temporary_files: dict[str, str]
) -> None:
    stream = run("adapt", checkpoints / "basic.pth", "--in-ch", "1", "-o", "-").stdout
    done = run("adapt", "-", "--in-ch", "2", "-o", "-", stdin=stream, env=no_temporary_files)
    assert done.returncode == 0, done.stderr
    assert load(done.stdout)["conv1.weight"].shape == (64, 2, 7, 7)


def test_a_stream_that_broke_off_fails_at_every_stage(run: Run, checkpoints: Path, tmp_path: Path) -> None:
    stream = run("adapt", checkpoints / "basic.pth", "--in-ch", "1", "-o", "-").stdout
    second = run("remove", "-", "--layers", "fc", "-q", "-o", "-", stdin=stream[:-1])
    third = run("heads", "-", "--classes", "3", "-q", "-o", "out.safetensors", stdin=second.stdout)
    for done in (second, third):
        assert (done.returncode, done.stderr.decode().splitlines()) == (
            1,
            [
                "error: standard input: it is truncated: 1 bytes are missing",
                "hint: the command before it in the pipe may have failed",
            ],
        )
    assert list(tmp_path.iterdir()) == []


def test_of_a_file_on_standard_input_what_is_still_to_come_is_read(run: Run, checkpoints: Path, tmp_path: Path) -> None:
    """As after `read -n 6` in a shell."""
    data = (checkpoints / "basic.pth").read_bytes()
    (tmp_path / "letter").write_bytes(b"Dear! " + data)
    with (tmp_path / "letter").open("rb", buffering=0) as file:
        file.seek(6)
        done = run("adapt", "-", "--in-ch", "1", "-o", "out.safetensors", stdin=file)
    assert done.returncode == 0, done.stderr
    assert source_of(tmp_path / "out.json") == ("standard input", "torch_zip", hashlib.sha256(data).hexdigest())
    by_path = run("adapt", checkpoints / "basic.pth", "--in-ch", "1", "-o", "path.safetensors")
    assert by_path.returncode == 0
    ours, theirs = (load((tmp_path / f"{name}.safetensors").read_bytes()) for name in ("out", "path"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_dry_run_writes_nothing(run: Run, checkpoints: Path, tmp_path: Path) -> None:
    done = run("adapt", checkpoints / "basic.pth", "--in-ch", "1", "--dry-run")
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (0, b"", [])
    assert b"[64, 3, 7, 7] -> [64, 1, 7, 7]: mean over the 3 input channels" in done.stderr
    assert b"nothing was written" in done.stderr


@pytest.mark.parametrize("dry", [True, False])
def test_json_is_one_document(run: Run, checkpoints: Path, tmp_path: Path, dry: bool) -> None:
    done = run("heads", checkpoints / "basic.pth", "--classes", "3,5", "--json", *(["--dry-run"] if dry else []))
    document = json.loads(done.stdout)
    assert (document["output"], document["manifest"]) == ("basic-heads-3-5.safetensors", "basic-heads-3-5.json")
    assert document["written"] is not dry
    assert (tmp_path / "basic-heads-3-5.safetensors").exists() is not dry
    assert {step["action"] for step in document["plan"]} == {"kept", "copied", "initialised", "dropped"}
    assert document["operations"][0]["heads"]["names"] == ["head1", "head2"]


def test_lists_and_spellings(run: Run, checkpoints: Path, tmp_path: Path) -> None:
    names = run(
        "heads",
        checkpoints / "basic.pth",
        "--classes=3, 5",
        "--names",
        "lesion,grade",
        "--own=layer3",
        "-oa.safetensors",
    )
    assert names.returncode == 0, names.stderr
    assert set(rs.load(tmp_path / "a.safetensors").heads) == {"lesion", "grade"}
    assert run("adapt", checkpoints / "basic.pth", "--in-channels", "2", "--init", "scaled").returncode == 0
    assert (
        run("remove", checkpoints / "basic.pth", "--layers", "avgpool,fc").stdout
        == b"basic-without-avgpool-fc.safetensors\n"
    )


def test_the_seed_is_that_of_the_source_and_of_the_operation(run: Run, tmp_path: Path) -> None:
    for seed, name in [("1", "a"), ("1", "b"), ("2", "c")]:
        assert run("heads", *RANDOM, "--classes", "3", "--seed", seed, "-o", f"{name}.safetensors").returncode == 0
    a, b, c = (load((tmp_path / f"{name}.safetensors").read_bytes()) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["conv1.weight"], c["conv1.weight"])
    assert not torch.equal(a["fc.weight"], c["fc.weight"])


def test_output_is_the_same_in_every_process(run: Run, checkpoints: Path, tmp_path: Path) -> None:
    for name, env in [("a", {}), ("b", {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "Asia/Tokyo"})]:
        assert (
            run("heads", checkpoints / "basic.pth", "--classes", "3,5", "-o", f"{name}.safetensors", env=env).returncode
            == 0
        )
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_without_a_source_it_is_resnet50(run: Run) -> None:
    done = run("adapt", "--in-ch", "1")
    assert done.returncode == 1
    assert b"resnet50 IMAGENET1K_V2: cannot download http://127.0.0.1:9/resnet50-11ad3fa6.pth" in done.stderr
    assert b"--weights random" in done.stderr


USAGE = [
    (["adapt"], "adapt: nothing says which channels the images have"),
    (["adapt", "--in-ch", "0"], "adapt: in_channels must be a whole number of at least 1, not 0"),
    (["adapt", "--in-ch", "one"], "adapt: in_channels must be a whole number, not `one`"),
    (["adapt", "--in-ch", "1", "--init", "sum"], "adapt: init must be one of mean, scaled, repeat, random, not `sum`"),
    (["adapt", "--in-ch", "1", "--wieghts", "random"], "No such option: --wieghts"),
    (["remove", *RANDOM], "remove: give either last or layers"),
    (["heads", *RANDOM, "--classes", "3,x"], "--classes: '3,x' is not a list of whole numbers"),
    (["heads", *RANDOM, "--classes", "3,5", "--names", "a"], "heads: 1 names for 2 heads"),
    (["adapt", "resnet18", "--in-ch", "1", "--weights", "V3"], "weights: resnet18 has no weights `V3`"),
    (["adapt", *RANDOM, "--in-ch", "1", "-o", "-", "--json"], "--json and `-o -` both want standard output"),
    (["adapt", *RANDOM, "--in-ch", "1", "-o", "x.json"], "its manifest gets the .json name"),
    (["adpt"], "No such command 'adpt'"),
]


@pytest.mark.parametrize(("arguments", "reason"), USAGE)
def test_wrong_usage_is_one_line_and_a_hint(run: Run, tmp_path: Path, arguments: list[str], reason: str) -> None:
    done = run(*arguments)
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, b"", [])
    assert lines[0].startswith("error: ")
    assert reason in lines[0]
    assert all(line.startswith("hint: ") for line in lines[1:])


REFUSED: list[tuple[list[str], str]] = [
    (["adapt", "missing.pth", "--in-ch", "1"], "missing.pth: no such file or directory"),
    (["adapt", ".", "--in-ch", "1"], ".: it is a folder"),
    (["adapt", "text.pth", "--in-ch", "1"], "text.pth: it is not a checkpoint"),
    (["adapt", "cut.pth", "--in-ch", "1"], "cut.pth: it is a truncated or damaged zip archive"),
    (["adapt", "cut.safetensors", "--in-ch", "1"], "cut.safetensors: it is truncated"),
    (["adapt", "linear.pth", "--in-ch", "1"], "linear.pth: this is not a ResNet's state_dict"),
    (
        ["remove", *RANDOM, "--layers", "layer2"],
        "remove: without `layer2` the layers after it would get 64 channels, not 128",
    ),
    (["adapt", *RANDOM, "--in-ch", "1", "-o", "no/out.safetensors"], "does not exist"),
    (["adapt", "-", "--in-ch", "1"], "standard input: it is empty"),
]


@pytest.mark.parametrize(("arguments", "reason"), REFUSED)
def test_bad_input_is_one_line_and_nothing_is_written(
    run: Run, tmp_path: Path, checkpoints: Path, arguments: list[str], reason: str
) -> None:
    (tmp_path / "text.pth").write_text("hello")
    for extension in ("pth", "safetensors"):
        whole = (checkpoints / f"basic.{extension}").read_bytes()
        (tmp_path / f"cut.{extension}").write_bytes(whole[: len(whole) // 2])
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    before = sorted(tmp_path.iterdir())
    done = run(*arguments)
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, sorted(tmp_path.iterdir())) == (1, b"", before)
    assert lines[0].startswith("error: ")
    assert reason in lines[0]
    assert len(lines) <= 2


def test_an_existing_file_needs_force(run: Run, checkpoints: Path) -> None:
    arguments = ["adapt", checkpoints / "basic.pth", "--in-ch", "1"]
    assert run(*arguments).returncode == 0
    refused = run(*arguments)
    assert refused.returncode == 1
    assert refused.stderr.decode().splitlines() == [
        "error: basic-in1.safetensors: it exists already",
        "hint: use `--force` to replace it, or `--output` to write elsewhere",
    ]
    assert b"this would need `--force`" in run(*arguments, "--dry-run").stderr
    assert run(*arguments, "--force").returncode == 0


def test_a_broken_pipe_at_the_front_stops_the_rest(run: Run) -> None:
    done = run("heads", "-", "--classes", "3,5", stdin=b"")
    assert done.stderr.decode().splitlines() == [
        "error: standard input: it is empty",
        "hint: the command before it in the pipe may have failed",
    ]


def test_names_from_files_never_reach_the_terminal_raw(run: Run, tmp_path: Path) -> None:
    torch.save({"conv1\x1b[2J\n.weight": torch.zeros(1)}, tmp_path / "evil\x1b[31m.pth")
    done = run("adapt", "evil\x1b[31m.pth", "--in-ch", "1")
    assert done.returncode == 1
    assert b"\x1b" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    done = run()
    assert (done.returncode, done.stderr) == (2, b"")
    assert b"Usage: resnet-surgeon" in done.stdout


def test_version(run: Run) -> None:
    assert run("--version").stdout.decode() == f"resnet-surgeon {rs.__version__}\n"


COMMANDS = [command.name or "" for command in app.registered_commands]


def test_the_commands_are_the_operations_and_what_looks_at_files() -> None:
    assert {*COMMANDS} == {*OPERATIONS, "convert", "apply", "recipe", "verify", "report", "diff", "inspect", "list"}


def test_what_the_program_s_help_says_of_a_command_is_what_it_says_of_itself() -> None:
    own = {command.name: (command.help or "").partition("\n\n")[0] for command in app.registered_commands}
    assert own == SUMMARIES


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example(run: Run, command: str) -> None:
    done = run(*([command] if command else []), "--help", env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.returncode == 0
    assert b"Example: resnet-surgeon" in done.stdout


def test_every_option_has_a_help_text_and_a_parameter_of_its_name(run: Run) -> None:
    for operation in OPERATIONS.values():
        shown = run(operation.name, "--help", env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout.decode()
        for field in dataclasses.fields(operation):  # type: ignore[arg-type]
            is_asked = not field.metadata.get("found")
            spelling = field.metadata.get("spelling") or "-"  # a word without dashes is an argument
            name = f"--{field.name.replace('_', '-')}" if spelling.startswith("-") else spelling
            assert is_asked == (name in shown)
            assert field.metadata["help"]


def test_the_library_opens_every_output(run: Run, checkpoints: Path, tmp_path: Path) -> None:
    for arguments in (
        ["adapt", "--in-ch", "5"],
        ["remove", "--last", "4"],
        ["heads", "--classes", "2,3", "--own", "layer2"],
    ):
        command, *options = arguments
        done = run(command, checkpoints / "bottleneck.safetensors", *options)
        with safe_open(tmp_path / done.stdout.decode().strip(), "pt") as file:
            assert all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118


def test_a_file_s_name_need_not_be_text(run: Run, checkpoints: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.pth")
    (tmp_path / name).write_bytes((checkpoints / "basic.pth").read_bytes())
    done = run("adapt", name, "--in-ch", "1")
    assert (done.returncode, done.stdout) == (0, b"caf_-in1.safetensors\n"), done.stderr
    manifest = (tmp_path / "caf_-in1.json").read_text("utf-8")
    assert json.loads(manifest)["source"]["file"] == "caf\ufffd.pth"


def test_an_empty_output_is_no_file(run: Run) -> None:
    done = run("adapt", *RANDOM, "--in-ch", "1", "-o", "")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"the output names no file" in done.stderr


@pytest.mark.parametrize("output", ["made", "made/"])
def test_an_output_that_is_a_folder_gets_a_file_of_the_default_name(output: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    done = run("adapt", *RANDOM, "--in-ch", "1", "-q", "-o", output)
    assert done.stdout == b"made/resnet18-random-in1.safetensors\n"
    assert (tmp_path / done.stdout.decode().strip()).exists()
