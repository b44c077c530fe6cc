"""The soak: mixed load for minutes; what the stack takes must not grow.

    make soak ARGS="--minutes 15"

The calls carry no Idempotency-Key, whose runs stay in Redis for a day; CALLBOARD_RESULT_TTL is
short, so that as many records leave Redis as come.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from chaos.checks import check_calls
from chaos.load import ASYNC_CLIENTS, Call, Load
from chaos.stack import Stack, running_stack
from chaos.usage import Sample, flat, sample, thirds

RESULT_TTL = 5  # seconds
WARM_UP = 0.1  # of the time, not looked at
SAMPLES = 90


def main() -> None:
    """Run it and print the table; exits 1 where something grew or a call failed."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15)
    seconds = parser.parse_args().minutes * 60
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    variables = {"CALLBOARD_RESULT_TTL": f"{RESULT_TTL}"}
    with running_stack(folder, fsync="everysec", **variables) as stack:
        secret = stack.environment["JWT_SECRET"]
        load = Load(stack.url, secret, seed=0, keyed=False, async_clients=ASYNC_CLIENTS)
        load.start()
        try:
            samples = _watch(stack, seconds)
        finally:
            load.stop()
    passed = _report(samples, load.calls, seconds, stack.problems)
    sys.exit(not passed)


def _watch(stack: Stack, seconds: float) -> list[Sample]:
    started = time.monotonic()
    samples: list[Sample] = []
    while (elapsed := time.monotonic() - started) < seconds:
        if elapsed > seconds * (WARM_UP + (1 - WARM_UP) * len(samples) / SAMPLES):
            samples.append(sample(stack))
        stack.look_after()
    return samples


def _report(
    samples: Sequence[Sample], calls: Sequence[Call], seconds: float, problems: Sequence[str]
) -> bool:
    """Print the table; whether all is well."""
    grown = 0
    _tell(f"{'medians of a third':<26}{'start':>9}{'middle':>9}{'end':>9}")
    for name in samples[0]:
        start, middle, end = thirds(samples, name)
        steady = flat(name, middle, end)
        grown += not steady
        _tell(f"{name:<26}{start:>9.1f}{middle:>9.1f}{end:>9.1f}  {'flat' if steady else 'GROWS'}")
    failures = list(check_calls(calls))
    _tell(f"{len(calls)} calls in {seconds:.0f} s, {len(failures)} without success")
    for text in [*(failure.text for failure in failures[:10]), *problems]:
        _tell(text)
    passed = not grown and not failures and not problems
    _tell("passed" if passed else "FAILED")
    return passed


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command


if __name__ == "__main__":
    main()
