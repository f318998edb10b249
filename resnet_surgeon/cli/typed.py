"""Commands whose values are left as they were typed: what they are to become, the dataclasses say that take them.

From 0.29 on typer imports pydantic to convert values, which takes longer than copying a network.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup


class TypedGroup(TyperGroup):
    """The program, with its own options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _leave_as_typed(self.get_params(ctx))
        return super().parse_args(ctx, args)


class TypedCommand(TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _leave_as_typed(self.get_params(ctx))
        return super().parse_args(ctx, args)


def _leave_as_typed(parameters: Iterable[Any]) -> None:
    for parameter in parameters:
        parameter.process_value = functools.partial(_as_typed, parameter, parameter.process_value)


def _as_typed(parameter: Any, process: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    if value is None and parameter.required:
        return process(ctx, value)  # which says what is missing
    return value if parameter.callback is None else parameter.callback(ctx, parameter, value)
