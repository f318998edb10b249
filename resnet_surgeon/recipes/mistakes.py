"""What is wrong with a recipe, and where: all of it, so that a person mends it at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from resnet_surgeon.errors import RecipeError
from resnet_surgeon.recipes.nodes import Place


@dataclass
class Mistakes:
    """Collected while a file of this name is read; each once, however often it is met."""

    name: str
    found: dict[tuple[Place, str], str] = field(default_factory=dict)

    def add(self, place: Place, reason: str, hint: str | None = None) -> None:
        self.found.setdefault((place, reason), hint or "")

    def check(self) -> None:
        """Raises RecipeError if there are any, in the order of the file."""
        if self.found:
            ordered = sorted(self.found.items(), key=lambda item: (item[0][0].line, item[0][0].column))
            raise RecipeError(
                tuple(
                    f"{self.name}:{place.line}:{place.column}: {reason}" + (f" ({hint})" if hint else "")
                    for (place, reason), hint in ordered
                )
            )
