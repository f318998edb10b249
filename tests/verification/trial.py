"""One draw on trial: the file holds, with and without its source, and a lie about it does not. `make prove` runs many.

python -m tests.verification.trial SECONDS [FIRST_SEED]
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from tests.verification.draws import Sound, lies, manifest_of, renamed, rewrite, sound


class WrongVerdictError(AssertionError):
    """verify was wrong about a file."""


def run(seed: int, folder: Path) -> Counter[str]:
    """How many sound files held and which lies were caught. Raises WrongVerdictError."""
    made = sound(seed, folder)
    draw = random.Random(seed + 1)
    counts: Counter[str] = Counter()
    for way in _ways(made, draw, folder):
        _check_sound(made, *way)
        counts["sound files"] += 1
    lie = draw.choice([*lies(manifest_of(made.path))])
    rewrite(made.path, lie.tell)
    # How the head of another source pools, and what its classes are called, nobody knows without that.
    is_said_elsewhere = lie.name in ("categories", "labels", "pool", "activation") and made.others
    for against in (made.source,) if is_said_elsewhere else (made.source, None):
        proof = made.verify(made.path, against)
        if not any(lie.word in check.finding for check in proof.failed):
            raise WrongVerdictError(f"{lie.name} passed, against {against}\n{proof}\n" + "\n".join(made.story))
        counts["lies"] += 1
    return counts


Way = tuple["Path | bytes", "Path | bytes | None", set[str]]


def _ways(made: Sound, draw: random.Random, folder: Path) -> list[Way]:
    """What is verified against what, and which checks may then be unproven."""
    copies: list[Path | bytes] = [made.source]
    if not made.source.name.endswith(".index.json"):  # which has its shards beside it
        copies = [renamed(made.source, folder), made.source.read_bytes()]
    copy = draw.choice(copies)
    everything = {"source", "history", "kept", "computed", "layers", "finite"}
    ways: list[Way] = [(made.path, draw.choice([made.source, copy]), set()), (made.path, None, everything)]
    ways.append((made.path.read_bytes(), copy, {"pair"}))
    ways.append((made.path, made.middle or made.path, {"source"}))
    return [ways[0], draw.choice(ways[1:])]


def _check_sound(made: Sound, path: Path | bytes, against: Path | bytes | None, may_be_unproven: set[str]) -> None:
    proof = made.verify(path, against)
    may_be_unproven = {*may_be_unproven, "same function"}  # of folded norms: odd numbers make much of rounding
    if "source" in may_be_unproven:
        may_be_unproven |= {f"source {number}" for number, _ in enumerate(made.others, 1)}
    if proof.failed or {check.name for check in proof.unproven} - may_be_unproven:
        what = against if isinstance(against, Path) else type(against).__name__
        raise WrongVerdictError(f"a sound file failed, against {what}\n{proof}\n" + "\n".join(made.story))


def main() -> None:
    seconds, first = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**9)
    warnings.simplefilter("ignore")
    end = time.monotonic() + seconds
    counts: Counter[str] = Counter()
    wrong = 0
    seed = first
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            try:
                counts += run(seed, Path(folder))
            except Exception as error:
                wrong += 1
                print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
        seed += 1
    print(f"seeds {first} to {seed - 1}: {dict(counts)}, {wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
