"""`make fuzz`: runs atheris (libFuzzer) on one target for a number of seconds, from the seeds and what it has found.

python -m tests.fuzz.run TARGET SECONDS [options of libFuzzer, such as -seed=1]
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

FOUND = Path("build/fuzz")


def main() -> None:
    target, seconds, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["resnet_surgeon"]):
        from tests.fuzz.targets import TARGETS, seeds
    corpus, crashes = FOUND / target, FOUND / "crashes"
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds()[target]):
        (corpus / f"seed{number}").write_bytes(data)
    limits = [
        f"-max_total_time={seconds}",
        "-timeout=100",
        "-rss_limit_mb=4096",
        "-max_len=65536",
        "-print_final_stats=1",
    ]
    arguments = [sys.argv[0], *limits, f"-artifact_prefix={crashes}/{target}-", *options, str(corpus)]
    atheris.Setup(arguments, TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
