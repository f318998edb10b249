"""The command of an operation: its options, and those that all operations share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import get_type_hints

from resnet_surgeon.cli.ahead import begun
from resnet_surgeon.cli.options import Json, Opening, OtherOpening, Packing, Quiet, Source, Writing
from resnet_surgeon.location import DEFAULT_NAME
from resnet_surgeon.operations.checkpoint import Operation, takes_one_other
from resnet_surgeon.writing.names import Names


def operates(kind: type[Operation]) -> Callable[..., None]:
    """The function of an operation's command, with the options that go with this operation."""

    def operate(
        source: Source = DEFAULT_NAME,
        *,
        operation: Operation,
        opening: Opening,
        packing: Packing | None = None,
        other: OtherOpening | None = None,
        writing: Writing,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        location = begun(source, writing)
        from resnet_surgeon.cli.run import run

        names: Names = "packed" if packing and packing.keep_packing else "torchvision"
        run(location, operation, opening, writing, other=other, names=names, json=json, quiet=quiet)

    hints = get_type_hints(operate, include_extras=True) | {
        "operation": kind,
        "packing": Packing,
        "other": OtherOpening,
    }
    left_out = {"packing": not kind.keeps_packing, "other": not takes_one_other(kind)}
    signature = inspect.signature(operate)
    parameters = [one for one in signature.parameters.values() if not left_out.get(one.name)]
    operate.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    operate.__annotations__ = {name: hint for name, hint in hints.items() if not left_out.get(name)}
    operate.__doc__ = kind.__doc__
    return operate
