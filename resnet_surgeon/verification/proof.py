"""What a proof is: checks, each with its outcome and what was found. Knows nothing of how they are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from resnet_surgeon.dataclass import dataclass
from resnet_surgeon.errors import escaped

Outcome = Literal["proven", "failed", "unproven"]
_SHOWN = 3


@dataclass(frozen=True)
class Check:
    """One statement about the file. `finding` gives its numbers, `tensors` names those that break it."""

    name: str
    outcome: Outcome
    finding: str
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proof:
    """All checks of one file, in order. As text it is a numbered line for each, and a last one that counts them."""

    output: str
    against: str | None
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """No check failed. What could not be tried is in `unproven`."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome == "failed")

    @property
    def unproven(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome == "unproven")

    def __str__(self) -> str:
        name = max((len(check.name) for check in self.checks), default=0)
        outcome = max((len(check.outcome) for check in self.checks), default=0)
        lines = [
            f"{number:2}  {check.outcome:<{outcome}}  {check.name:<{name}}  {check.finding}"
            for number, check in enumerate(self.checks, start=1)
        ]
        return "\n".join(escaped(line) for line in (*lines, self.summary))

    @property
    def summary(self) -> str:
        """`model.safetensors: 13 proven, 0 failed, 2 unproven`."""
        counts = Counter(check.outcome for check in self.checks)
        return f"{self.output}: {', '.join(f'{counts[outcome]} {outcome}' for outcome in get_args(Outcome))}"


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def not_carried_out(name: str, error: Exception) -> Check:
    """A lack of memory is not the file's fault; another error of torch's is."""
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "can't allocate memory" in str(error):
        return Check(name, "unproven", "there was not enough memory for it")
    return Check(name, "failed", f"{error}".splitlines()[0] if str(error) else type(error).__name__)
