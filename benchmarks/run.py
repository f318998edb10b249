"""Time and memory of whole processes, resnet-surgeon's beside its peers', in turn and in one run: `make bench`.

Prints a table of ratios, and with `--write` keeps it in docs/benchmarks.md. Imports nothing heavy: on Linux a process
begins with its parent's peak memory.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
SURGEON = shutil.which("resnet-surgeon", path=str(Path(sys.executable).parent)) or "resnet-surgeon"
PEERS = f"{shlex.quote(sys.executable)} {HERE}/peers"
MODELS = ("resnet18", "resnet50", "wide_resnet101_2")


@dataclass(frozen=True)
class Measure:
    """Medians over the runs of one command."""

    seconds: float
    mebibytes: float


def once(command: str) -> Measure:
    """One run in a shell: wall time, and the peak memory of its largest process."""
    start = time.perf_counter()
    process = subprocess.Popen(["bash", "-c", f"exec {command}" if "|" not in command else command],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stderr
    problem = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command}\n{problem.decode()}")
    return Measure(time.perf_counter() - start, usage.ru_maxrss / 1024)


def in_turn(commands: dict[str, str], runs: int, new: Path | None = None) -> dict[str, Measure]:
    """Medians of each command after a warm-up. They replace their outputs, or find none in the emptied folder `new`."""
    measures: dict[str, list[Measure]] = {name: [] for name in commands}
    for run in range(runs + 1):
        for name, command in commands.items():
            if new:
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir()
            measure = once(command)
            if run:
                measures[name].append(measure)
    return {
        name: Measure(statistics.median(m.seconds for m in taken), statistics.median(m.mebibytes for m in taken))
        for name, taken in measures.items()
    }


def adapt_commands(source: Path, model: str, outputs: Path) -> dict[str, str]:
    return {
        "ours": f"{SURGEON} adapt {source} --in-ch 1 -q --force -o {outputs}/ours.safetensors",
        "cp": f"cp {source} {outputs}/cp",
        "torch": f"{PEERS}/torch_adapt.py {source} {model} {outputs}/torch.safetensors",
        "timm": f"{PEERS}/timm_adapt.py {source} {model} {outputs}/timm.safetensors",
    }


def pipe_commands(source: Path, model: str, outputs: Path) -> dict[str, str]:
    stages = (
        f"adapt {source} --in-ch 1 -q -o -",
        "remove - --layers fc -q -o -",
        f"heads - --classes 3,5 -q --force -o {outputs}/ours.safetensors",
    )
    return {
        "ours": " | ".join(f"{SURGEON} {stage}" for stage in stages),
        "one": adapt_commands(source, model, outputs)["ours"],
        "cp": f"cp {source} {outputs}/cp",
        "torch": f"{PEERS}/torch_pipe.py {source} {model} {outputs}/torch.safetensors",
    }


HEAD = """
| what | ours | cp | torch + torchvision | timm | memory: ours | torch |
|---|---|---|---|---|---|---|
"""


def row(what: str, measures: dict[str, Measure]) -> str:
    ours = measures["ours"]

    def peer(name: str) -> str:
        if name not in measures:
            return ""
        other = measures[name].seconds
        factor = (
            f"{ours.seconds / other:.1f} times its time"
            if name == "cp"
            else f"**{other / ours.seconds:.1f} times** faster"
        )
        return f"{other:.2f} s: {factor}"

    torch = measures["torch"].mebibytes if "torch" in measures else None
    memory = f"{ours.mebibytes:.0f} MiB | " + (f"{torch:.0f} MiB: 1/{torch / ours.mebibytes:.0f}" if torch else "")
    if "zip" in measures:
        what += f": {ours.seconds / measures['zip'].seconds:.1f} times the zip archive's time"
    if "one" in measures:
        what += f": {ours.seconds / measures['one'].seconds:.1f} times the time of one `adapt`"
    return f"| {what} | {ours.seconds:.2f} s | {peer('cp')} | {peer('torch')} | {peer('timm')} | {memory} |\n"


def told(line: str) -> str:
    print(line, end="", flush=True)
    return line


def load_ratio(data: Path, model: str, runs: int) -> str:
    adapted = data / f"{model}-kept.safetensors"
    once(f"{SURGEON} adapt {data}/{model}.safetensors --in-ch 3 --init repeat -q --force -o {adapted}")
    command = [
        sys.executable,
        f"{HERE}/peers/load.py",
        str(adapted),
        str(data / f"{model}.safetensors"),
        model,
        str(runs),
    ]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[2:]
    ours, theirs = zip(*(map(float, line.split()) for line in lines), strict=True)
    ratio = statistics.median(their / our for our, their in zip(ours, theirs, strict=True))
    seconds = f"{statistics.median(ours):.3f} s | {statistics.median(theirs):.3f} s"
    return f"| `rs.load`, {model} | {seconds} | **{ratio:.1f} times** |\n"


def start_row(words: str, runs: int) -> str:
    commands = {"ours": f"{SURGEON} {words}", "python": f"{shlex.quote(sys.executable)} -c pass"}
    ours, python = (measure.seconds for measure in in_turn(commands, runs).values())
    return f"| `resnet-surgeon {words}` | {ours:.3f} s | {python:.3f} s: {ours / python:.1f} times its time |\n"


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    packages = ("resnet-surgeon", "torch", "torchvision", "timm", "safetensors", "typer")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{date.today()}, {len(names)} x {names[0]}, {system}, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--runs", type=int, default=5, help="counted runs of each command")
    parser.add_argument("--write", action="store_true", help="keep the result in docs/benchmarks.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        data, outputs = Path(folder), Path(folder, "outputs")
        subprocess.run([sys.executable, HERE / "peers" / "make_checkpoints.py", folder, *MODELS], check=True)
        table = HEAD
        outputs.mkdir()
        for model in MODELS:
            for extension in ("safetensors", "pth"):
                source = data / f"{model}.{extension}"
                measures = in_turn(adapt_commands(source, model, outputs), options.runs)
                table += told(row(f"`adapt --in-ch 1`, {source.name}", measures))
        zipped, *others = (data / f"resnet50{kind}.pth" for kind in ("", "-legacy", "-channels_last"))
        for source in others:
            commands = {
                name: adapt_commands(path, "resnet50", outputs)["ours"]
                for name, path in (("ours", source), ("zip", zipped))
            }
            table += told(row(f"`adapt --in-ch 1`, {source.name}", in_turn(commands, options.runs)))
        for model in MODELS:
            source = data / f"{model}.safetensors"
            commands = {name: adapt_commands(source, model, data / "new")[name] for name in ("ours", "cp")}
            table += told(
                row(f"the same onto a new file, {source.name}", in_turn(commands, options.runs, data / "new"))
            )
        for model in MODELS:
            measures = in_turn(pipe_commands(data / f"{model}.safetensors", model, outputs), options.runs)
            table += told(row(f"`adapt \\| remove \\| heads`, {model}", measures))
        table += "\n| in one process | ours | torchvision + load_state_dict | faster |\n|---|---|---|---|\n"
        for model in MODELS:
            table += told(load_ratio(data, model, 2 * options.runs + 1))
        table += "\n| starting | ours | `python -c pass` |\n|---|---|---|\n"
        for words in ("--version", "--help", "adapt --help"):
            table += told(start_row(words, 4 * options.runs))
    if options.write:
        before, _, _ = PAGE.read_text("utf-8").partition("<!-- result -->")
        PAGE.write_text(f"{before}<!-- result -->\n\nMedians of {options.runs} runs. {machine()}.\n{table}", "utf-8")


if __name__ == "__main__":
    main()
