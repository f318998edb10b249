"""`recipe`: the recipe that made a file."""

from __future__ import annotations

from resnet_surgeon.cli.output import to_standard_output
from resnet_surgeon.cli.verify import Output


def recipe(output: Output) -> None:
    """Print the recipe that made a file: `apply` makes the same bytes of it, where the source lies beside.

    What was trained since, or changed by anything else, has no recipe.
    """
    from resnet_surgeon.recipes.repeat import recipe_text

    to_standard_output(recipe_text(output).removesuffix("\n"))
