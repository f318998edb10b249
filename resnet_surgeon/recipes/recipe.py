"""A recipe: a file that says what to build. What Python programs and the command line have of this room."""

from __future__ import annotations

import os
from collections.abc import Mapping

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.recipes import build as building
from resnet_surgeon.recipes import reading
from resnet_surgeon.recipes.build import Built
from resnet_surgeon.recipes.reading import Target
from resnet_surgeon.sources.progress import Progress, silent


@dataclass(frozen=True)
class Recipe:
    """All that a file says to build.

    >>> Recipe.read("recipe.yaml", {"channels": 4}).build()
    """

    name: str
    targets: tuple[Target, ...]

    @classmethod
    def read(cls, path: str | os.PathLike[str], variables: Mapping[str, object] | None = None) -> Recipe:
        """The recipe in a YAML file, with `variables` in place of the values that it gives them itself.

        Raises AccessError for a file that cannot be read, RecipeError with all that is wrong with its text, UsageError
        for a variable that it has not.
        """
        return cls(os.fspath(path), reading.read(path, variables or {}))

    def plan(self, source: str | None = None, *, progress: Progress = silent) -> tuple[Built, ...]:
        """What would be built, from `source` if that is given in place of the recipe's own, and what is there already,
        byte for byte; writes nothing.

        Raises the errors of `resnet_surgeon.open` and of the operations, with the line of the recipe.
        """
        return building.plan(self.name, self.targets, source, progress)

    def build(
        self, source: str | None = None, *, force: bool = False, progress: Progress = silent
    ) -> tuple[Built, ...]:
        """Builds every output that is not there already, byte for byte, and records size and SHA-256 of all of them in
        the lock beside the recipe (`recipe.lock.json`).

        A file in the way is replaced if it is what this recipe made last, or with `force`. Nothing is written before
        every source was opened and every operation fits. Raises AccessError and the errors of `plan`.
        """
        return building.build(self.name, self.targets, source, force, progress)
