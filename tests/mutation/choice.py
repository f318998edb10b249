"""Which tests are to be run on a mutant: those that come to its line first. Plugins of pytest that find this out, and
that run a choice of tests.
"""

from __future__ import annotations

import ast
import json
import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import pytest
from coverage import Coverage, CoverageData
from coverage.exceptions import DataError

_TESTS = "tests"  # ends the name of their own file, beside those of the processes that they start


@dataclass(frozen=True)
class Test:
    """A test that passes: the seconds of the processor that it takes when it is watched, and whether it runs commands,
    for which a server has to start.
    """

    id: str
    seconds: float
    runs_commands: bool


class Watched:
    """The plugin that writes down each test that passes, as one line of JSON; and the lines that each comes to, as do
    the processes that it starts, as contexts of coverage.py, whose settings are in pyproject.toml.
    """

    def __init__(self, out: IO[str], lines: Path) -> None:
        self._out = out
        self._passed: set[str] = set()
        self._lines = lines.absolute()
        self._coverage = Coverage(data_file=str(self._lines), data_suffix=_TESTS)

    def pytest_collection_finish(self) -> None:
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        before = processor_time()
        self._coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            seconds = processor_time() - before
            self._add_processes()
            self._coverage.switch_context("")
            if item.nodeid in self._passed:
                test = Test(item.nodeid, seconds, "server" in getattr(item, "fixturenames", ()))
                self._out.write(json.dumps(asdict(test)) + "\n")
                self._out.flush()

    def _add_processes(self) -> None:
        data = self._coverage.get_data()
        for path in self._lines.parent.glob(f"{self._lines.name}.*.pid*"):
            process = CoverageData(str(path))
            with suppress(DataError):  # of one that was killed while it wrote
                process.read()
                data.add_lines({file: process.lines(file) or () for file in process.measured_files()})
            process.close()
            path.unlink()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._passed.add(report.nodeid)


class Chosen:
    """The plugin that runs these tests alone, in this order."""

    def __init__(self, tests: list[Test]) -> None:
        self._place = {test.id: place for place, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._place), key=lambda item: self._place[item.nodeid]
        )


def written(path: Path) -> list[Test]:
    """The tests that `Watched` wrote."""
    return [Test(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def reached(lines: Path, module: Path) -> dict[int, list[str]]:
    """The ids of the tests that come to each line of a module, as `Watched` wrote them."""
    data = CoverageData(f"{lines}.{_TESTS}")
    data.read()
    return data.contexts_by_lineno(str(module.absolute()))


def choice(
    tests: list[Test], ids: dict[int, list[str]], module: Path, source: str, line: int, seconds: float
) -> list[Test]:
    """The tests that come to the statement that this line of a module is in, or, where it is in no function, to the
    module; as many as take about so many seconds. What is quick to start and mirrors the module comes first. `ids` are
    those of the tests that come to each line.
    """
    there = _statement(source, line)
    coming = {test for number, tests in ids.items() if there is None or number in there for test in tests}
    ranked = []
    for test in tests:
        if test.id in coming:
            mirrors = Path(test.id.split("::")[0]).stem == f"test_{module.stem}"
            ranked.append((test.runs_commands, not mirrors, test.seconds, test.id, test))
    chosen, taken = [], 0.0
    for *_, test in sorted(ranked, key=lambda each: each[:4]):
        if taken + test.seconds <= seconds:
            chosen.append(test)
            taken += test.seconds
    return chosen


def _statement(source: str, line: int) -> range | None:
    """The lines of the innermost statement of a function that a line is in; without its body, if it has one."""
    found, in_function = None, False
    for node in ast.walk(ast.parse(source)):  # from the outside in
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            body, end = getattr(node, "body", None), (node.end_lineno or 0) + 1
            if in_function:
                found = range(node.lineno, body[0].lineno if body and line < body[0].lineno else end)
            in_function = in_function or isinstance(node, ast.FunctionDef)
    return found


def processor_time() -> float:
    """The seconds of the processor that this process and those that it waited for have taken."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
