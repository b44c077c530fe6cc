"""Usage: what the stack takes of the machine and keeps in Redis, sampled over time (Linux)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from chaos.stack import API, BROKER, WORKERS, Stack, children

__all__ = ["SLACK", "Sample", "flat", "sample", "thirds"]

Sample = dict[str, float]
"""What was counted, by name. Memory in MiB."""

GROWTH = 0.05  # of the middle third, that the last third may be above it
SLACK = {"MiB": 6.0, "keys": 40.0}  # and this much: a measurement is never quite still
OTHER_SLACK = 8.0  # connections, open files


def sample(stack: Stack) -> Sample:
    """Count everything now."""
    api = [stack.pid(API), *children(stack.pid(API))]
    workers = [stack.pid(name) for name in WORKERS]
    pool = [pid for worker in workers for pid in children(worker)]
    with stack.redis() as client:
        connections = int(client.info("clients")["connected_clients"])
        keys = int(client.dbsize())
        dataset = int(client.info("memory")["used_memory"]) / 2**20
    return {
        "API, MiB": _memory(api),
        "workers, MiB": _memory(workers),
        "their children, MiB": _memory(pool),
        "Valkey, MiB": _memory([stack.pid(BROKER)]),
        "data in Valkey, MiB": dataset,
        "keys in Valkey": float(keys),
        "connections to Valkey": float(connections),
        "open files of the API": _open_files(api),
        "open files of workers": _open_files(workers),
        "open files of children": _open_files(pool),
    }


def thirds(samples: Sequence[Sample], name: str) -> tuple[float, float, float]:
    """The medians of the first, the middle and the last third of the samples."""
    values = [each[name] for each in samples]
    size = len(values) // 3
    return median(values[:size]), median(values[size:-size]), median(values[-size:])


def flat(name: str, middle: float, last: float) -> bool:
    """Whether the last third is no more than the middle one and its slack."""
    slack = next((value for unit, value in SLACK.items() if unit in name), OTHER_SLACK)
    return last <= middle * (1 + GROWTH) + slack


def _memory(pids: Iterable[int]) -> float:
    """Resident, in MiB: shared pages count once per process."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return total / 1024


def _open_files(pids: Iterable[int]) -> float:
    return float(sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids))
