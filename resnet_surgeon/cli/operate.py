"""The command of an operation: its options, and those that all operations share."""

from __future__ import annotations

import typing
from collections.abc import Callable

from resnet_surgeon.cli.options import Json, Opening, OtherOpening, Packing, Quiet, Source, Writing
from resnet_surgeon.location import DEFAULT_NAME
from resnet_surgeon.operations.checkpoint import Operation, takes_one_other
from resnet_surgeon.writing.names import Names


def operates(kind: type[Operation]) -> Callable[..., None]:
    """The function of an operation's command."""

    def operate(
        source: Source = DEFAULT_NAME,
        *,
        operation: Operation,
        opening: Opening,
        writing: Writing,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        from resnet_surgeon.cli.run import run

        run(source, operation, opening, writing, json=json, quiet=quiet)

    def operate_within(
        source: Source = DEFAULT_NAME,
        *,
        operation: Operation,
        opening: Opening,
        packing: Packing,
        writing: Writing,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        from resnet_surgeon.cli.run import run

        names: Names = "packed" if packing.keep_packing else "torchvision"
        run(source, operation, opening, writing, names=names, json=json, quiet=quiet)

    def operate_with_another(
        source: Source = DEFAULT_NAME,
        *,
        operation: Operation,
        opening: Opening,
        other: OtherOpening,
        writing: Writing,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        from resnet_surgeon.cli.run import run

        run(source, operation, opening, writing, other=other, json=json, quiet=quiet)

    function: Callable[..., None] = operate_within if kind.keeps_packing else operate
    if takes_one_other(kind):
        function = operate_with_another
    function.__annotations__ = {**typing.get_type_hints(function, include_extras=True), "operation": kind}
    function.__doc__ = kind.__doc__
    return function
