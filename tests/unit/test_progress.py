"""The latest progress always arrives, and a handler may tell it as often as it likes."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from callboard.errors import BrokerUnavailable
from worker.runs.progress import AsyncProgress, Progress

Eventually = Callable[..., None]


class Written:
    """What was written; while ``away`` is set, nothing can be."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.away = False

    def __call__(self, content: bytes) -> None:
        if self.away:
            raise BrokerUnavailable
        self.told.append(json.loads(content))

    @property
    def fractions(self) -> list[float]:
        return [told["fraction"] for told in self.told]


@pytest.fixture
def written() -> Written:
    return Written()


def test_the_first_is_written_at_once_and_the_latest_by_itself(
    written: Written, eventually: Eventually
) -> None:
    progress = Progress(written, 0.5)
    for step in range(5):
        progress(step / 4, f"step {step}")
    assert written.told[0] == {"fraction": 0.0, "message": "step 0"}
    eventually(lambda: written.told[-1] == {"fraction": 1.0, "message": "step 4"})
    assert len(written.told) < 5


def test_the_end_of_the_handler_waits_for_no_timer(
    written: Written, eventually: Eventually
) -> None:
    progress = Progress(written, 3600)
    for step in range(5):
        progress(step / 4)
    progress.flush()
    assert written.fractions == [0.0, 1.0]
    progress.flush()
    assert written.fractions == [0.0, 1.0]
    eventually(lambda: not [t for t in threading.enumerate() if isinstance(t, threading.Timer)])


def test_without_a_pause_each_is_written(written: Written) -> None:
    progress = Progress(written, 0)
    for step in range(5):
        progress(step / 4)
    assert written.fractions == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_many_calls_cost_little(written: Written) -> None:
    progress = Progress(written, 0.1)
    began, cpu = time.monotonic(), time.thread_time()
    for step in range(100_000):
        progress(step / 100_000, "a row")
    took, cpu = time.monotonic() - began, time.thread_time() - cpu
    progress.flush()
    assert written.fractions[-1] == 0.99999
    assert len(written.told) <= took / 0.1 + 2
    assert cpu < 3  # 0.1 to 0.2 s


def test_many_threads_tell_the_latest_last(written: Written) -> None:
    progress = Progress(written, 0.001)
    threads = [
        threading.Thread(target=lambda: [progress(n / 500) for n in range(500)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    progress(1.0)
    progress.flush()
    assert written.fractions[-1] == 1.0


@pytest.mark.parametrize("fraction", [True, "0.5", None])
def test_what_is_no_number_is_refused_at_once(written: Written, fraction: Any) -> None:
    progress = Progress(written, 3600)
    progress(0.1)
    with pytest.raises(TypeError, match="fraction from 0 to 1"):
        progress(fraction)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
def test_what_is_no_fraction_is_refused_at_once(written: Written, fraction: float) -> None:
    progress = Progress(written, 3600)
    progress(0.1)
    with pytest.raises(ValueError, match="fraction from 0 to 1"):
        progress(fraction)


def test_a_broker_that_is_away_fails_the_call_and_not_the_end(written: Written) -> None:
    progress = Progress(written, 0)
    written.away = True
    with pytest.raises(BrokerUnavailable):
        progress(0.5)
    progress.flush()
    written.away = False
    progress.flush()
    assert written.fractions == [0.5]


def test_a_long_message_is_cut_and_half_a_surrogate_pair_is_replaced(written: Written) -> None:
    Progress(written, 0)(0.5, "\ud800" + "x" * 1000)
    assert written.told == [{"fraction": 0.5, "message": "?" + "x" * 499}]


def test_a_forked_process_tells_its_own(written: Written) -> None:
    progress = Progress(written, 3600)
    progress(0.1)
    progress(0.2)
    child = os.fork()
    if child == 0:
        progress(0.3)
        os._exit(0 if written.fractions == [0.1, 0.3] else 1)
    assert os.waitpid(child, 0)[1] == 0
    progress.flush()
    assert written.fractions == [0.1, 0.2]


class AsyncWritten(Written):
    """The same, awaited: each write lets the others go on."""

    async def write(self, content: bytes) -> bool:
        await asyncio.sleep(0)
        self(content)
        return True


class TestOnAnEventLoop:
    @pytest.fixture
    def written(self) -> AsyncWritten:
        return AsyncWritten()

    def test_the_first_is_written_at_once_and_the_latest_by_itself(
        self, written: AsyncWritten
    ) -> None:
        async def handler() -> None:
            progress = AsyncProgress(written.write, 0.05)
            for step in range(5):
                await progress(step / 4, f"step {step}")
            assert written.fractions == [0.0]
            while written.fractions[-1] != 1.0:
                await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(handler(), 10))
        assert written.told[-1] == {"fraction": 1.0, "message": "step 4"}
        assert len(written.told) < 5

    def test_the_end_of_the_handler_waits_for_no_timer(self, written: AsyncWritten) -> None:
        async def handler() -> None:
            progress = AsyncProgress(written.write, 3600)
            for step in range(5):
                await progress(step / 4)
            await progress.flush()
            assert written.fractions == [0.0, 1.0]
            await progress.flush()

        asyncio.run(handler())
        assert written.fractions == [0.0, 1.0]

    def test_without_a_pause_each_is_written(self, written: AsyncWritten) -> None:
        async def handler() -> None:
            progress = AsyncProgress(written.write, 0)
            for step in range(5):
                await progress(step / 4)

        asyncio.run(handler())
        assert written.fractions == [0.0, 0.25, 0.5, 0.75, 1.0]

    def test_many_tasks_tell_the_latest_last(self, written: AsyncWritten) -> None:
        async def told(progress: AsyncProgress) -> None:
            for n in range(200):
                await progress(n / 200)
                await asyncio.sleep(0)

        async def handler() -> None:
            progress = AsyncProgress(written.write, 0.001)
            await asyncio.gather(*(told(progress) for _ in range(4)))
            await progress(1.0)
            await progress.flush()

        asyncio.run(handler())
        assert written.fractions[-1] == 1.0

    def test_what_is_no_fraction_is_refused(self, written: AsyncWritten) -> None:
        async def handler(fraction: Any) -> None:
            await AsyncProgress(written.write, 0)(fraction)

        with pytest.raises(TypeError, match="fraction from 0 to 1"):
            asyncio.run(handler("0.5"))
        with pytest.raises(ValueError, match="fraction from 0 to 1"):
            asyncio.run(handler(1.1))

    def test_a_broker_that_is_away_fails_the_call_and_not_the_end(
        self, written: AsyncWritten
    ) -> None:
        async def handler() -> None:
            progress = AsyncProgress(written.write, 0)
            written.away = True
            with pytest.raises(BrokerUnavailable):
                await progress(0.5)
            await progress.flush()
            written.away = False
            await progress.flush()

        asyncio.run(handler())
        assert written.fractions == [0.5]
