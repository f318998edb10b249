"""`apply`: builds what a recipe says, as far as it is not there already."""

from __future__ import annotations

import json as json_format
import sys
from typing import Annotated, Any

import typer

from resnet_surgeon.cli.options import Json, Quiet, progress
from resnet_surgeon.cli.output import to_standard_output


def apply(
    recipe: Annotated[str, typer.Argument(help="A YAML file that says what to build.", metavar="RECIPE")],
    source: Annotated[
        str | None,
        typer.Argument(help="A network in place of the recipe's own source, as for other commands.", metavar="SOURCE"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A variable's value: channels=4. May be given several times.", metavar="NAME=VALUE"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that this recipe did not make.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be built, and write nothing.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build what a recipe says: several operations, several outputs, variables.

    An output that is there already, byte for byte, is not touched. One that this recipe made and that must change is
    replaced; `recipe.lock.json` knows them by their SHA-256. Every mistake in a recipe is reported with its line.
    """
    import resnet_surgeon as rs
    from resnet_surgeon.architecture.recognise import describe
    from resnet_surgeon.errors import UsageError, message
    from resnet_surgeon.recipes.reading import stated_variables

    if recipe == "-":
        hint = "resnet-surgeon recipe FILE > recipe.yaml && resnet-surgeon apply recipe.yaml"
        raise UsageError("a recipe is a file, beside which its lock stands", subject=recipe, hint=hint)
    plan = rs.Recipe.read(recipe, stated_variables(settings or ()))
    shown = progress(quiet)
    built = plan.plan(source, progress=shown) if dry_run else plan.build(source, force=force, progress=shown)
    for item in built:
        if not quiet:
            print(message(f"{item.outcome:10} {item.output}: {describe(item.network.architecture)}"), file=sys.stderr)
        if not json and not dry_run:
            to_standard_output(str(item.output))
    if json:
        document: list[dict[str, Any]] = [
            {"output": str(item.output), "outcome": item.outcome, "size": item.size, "sha256": item.sha256}
            for item in built
        ]
        to_standard_output(json_format.dumps(document, indent=1, sort_keys=True))
