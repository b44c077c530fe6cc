"""One turn: a stack is started fresh, warmed up, measured and stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from benchmarks.cpu import cpu_seconds, per_call
from benchmarks.generator import generate
from benchmarks.jobs import DONE, UPSERT, WAIT
from benchmarks.load import Load, LoadResult
from benchmarks.memory import Peak
from benchmarks.results import CALLERS, Measurement
from benchmarks.servers import Database, Watched
from benchmarks.sites import running_site, wait_until
from benchmarks.stacks import Site, Stack
from benchmarks.stacks.base import HOST

__all__ = ["Plan", "take_turn"]

PROBE_TIMEOUT = 3.0  # seconds for one try of a first answer
WARM_CALLERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long everything takes, in seconds."""

    seconds: float  # counted, per measurement
    lead_in: float = 0.3  # before that
    ramp: float = 0.0  # over which the callers begin
    warm_up: float = 1.0  # per job, after the start

    @property
    def waiting(self) -> Plan:
        """For the job that waits: its callers begin one after the other, so that what is measured
        is no wave that comes back once a second."""
        return replace(self, seconds=3 * self.seconds, ramp=1.0, lead_in=2.5)


def take_turn(stack: Stack, database: Database, plan: Plan, number: int) -> Iterator[Measurement]:
    """Measure one stack in round ``number``; yields each measurement as it is made.

    Raises `ProcessFailed` where a process of it dies, `CallboardError` where it never answers.
    """
    with running_site(stack.key, stack.programs, database, upserts=UPSERT in stack.jobs) as (
        site,
        supervisor,
    ):
        yield from _Turn(stack, site, supervisor, database, plan).measurements(number)


def _nothing() -> None:
    """What is done while a load runs, where nothing is."""


class _Turn:
    """A stack whose processes have been started."""

    def __init__(
        self, stack: Stack, site: Site, supervisor: Watched, database: Database, plan: Plan
    ) -> None:
        self._stack = stack
        self._site = site
        self._supervisor = supervisor
        self._processes = [*supervisor.running, *database.processes]
        self._plan = plan

    def measurements(self, number: int) -> Iterator[Measurement]:
        for job in self._stack.jobs:
            self._wait_for_answer(job)
            self._run_load(job, WARM_CALLERS, replace(self._plan, seconds=self._plan.warm_up))
        for job in self._stack.jobs:
            for callers in CALLERS[job]:
                yield self._measure(number, job, callers)

    def _wait_for_answer(self, job: str) -> None:
        wait_until(
            lambda: self._stack.answers(self._site, job, PROBE_TIMEOUT),
            f"{self._stack.name}, {job!r}:",
            self._supervisor,
        )

    def _measure(self, number: int, job: str, callers: int) -> Measurement:
        plan = self._plan.waiting if job == WAIT else self._plan
        memory = Peak(process for process in self._processes if process.name.startswith("worker"))
        before = cpu_seconds(self._processes)
        load = self._run_load(job, callers, plan, memory.look if job == WAIT else _nothing)
        after = cpu_seconds(self._processes)
        return Measurement(
            round=number,
            stack=self._stack.key,
            job=job,
            callers=callers,
            load=load,
            cpu_ms=per_call(before, after, max(load.all_calls, 1)),
            workers_mib=memory.mib,
        )

    def _run_load(
        self, job: str, callers: int, plan: Plan, meanwhile: Callable[[], None] = _nothing
    ) -> LoadResult:
        """Run the generator while all processes are watched."""
        load = Load(
            host=HOST,
            port=self._site.port,
            request=self._stack.request(self._site, job).as_bytes().decode(),
            expect=DONE,
            callers=callers,
            seconds=plan.seconds,
            lead_in=plan.lead_in,
            ramp=plan.ramp,
        )

        def look() -> None:
            self._supervisor.tick()
            meanwhile()

        return generate(load, self._stack.name, look)
