"""An application with schedules, on the real servers and a clock that the test moves."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from callboard import ActionContext, ActionResult, Schedule, action, ok
from callboard.connections.mongodb import Store
from callboard.connections.redis import connect
from callboard.registry import Registry
from callboard.schedules.enqueue import Publisher
from callboard.schedules.fires import Fire, Fires
from callboard.schedules.state import Schedules
from callboard.settings import Settings, get_settings
from callboard.stack.ports import free_port
from worker.runs.execution import execute
from worker.schedules.beat import Beat
from worker.services import Services

MINUTE = timedelta(minutes=1)


@action
def work(ctx: ActionContext) -> ActionResult:
    ctx.log.info("works")
    STARTED.append(ctx.run_id)
    return ok()


STARTED: list[str] = []  # the handlers' starts; emptied by `ScheduledApp`


@dataclass
class Clock:
    """The time, as the test says. It begins at a full hour near the real one."""

    ahead = 0.0
    moment: datetime = field(
        default_factory=lambda: datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    )

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, **step: float) -> None:
        """By minutes, seconds, ..."""
        self.moment += timedelta(**step)


class ScheduledApp:
    """Beats and a worker of an application whose one action is `work`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = Clock()
        self.redis = connect(settings)
        self.store = Store.of(settings)
        self.stores = [self.store]  # and those of what else is built on these settings
        self.schedules = Schedules(self.store.database)
        self.fires = Fires(self.store.database)
        self._services: list[Services] = []
        STARTED.clear()

    def services(self, *schedules: Schedule) -> Services:
        registry = Registry(actions={"work": work}, schedules=schedules)
        services = Services(self.settings, registry)
        services.store = self.store
        self._services.append(services)
        return services

    def close(self) -> None:
        """Close the connections."""
        self.redis.close()
        for store in self.stores:
            store.close()
        for services in self._services:
            services.runs.close()

    def beat(self, *schedules: Schedule) -> Beat:
        """A beat that has started: it has seen its schedules."""
        beat = Beat(self.services(*schedules), "beat", now=self.clock)
        beat.turn()
        return beat

    def publisher(self, *schedules: Schedule) -> Publisher:
        services = self.services(*schedules)
        return Publisher(self.settings, services.registry, services.runs, self.fires)

    def queued(self) -> list[str]:
        """The run ids in the queue, the next one first."""
        messages = reversed(self.redis.lrange("callboard", 0, -1))
        return [json.loads(text)["headers"]["id"] for text in messages]

    def work(self) -> list[str]:
        """Run what is queued, as a worker's child does; the handlers that started."""
        services, before = self.services(), len(STARTED)
        while message := self.redis.rpop("callboard"):
            run_id = json.loads(message)["headers"]["id"]
            execute(services, work, run_id, tuple)
        return STARTED[before:]

    def history(self, name: str = "s") -> list[Fire]:
        """Oldest first."""
        return self.fires.history(name, 1000)[::-1]

    def outcomes(self, name: str = "s") -> list[str | None]:
        return [fire.outcome for fire in self.history(name)]

    def move_database_away(self, monkeypatch: Any) -> None:
        """Nothing answers any more where MONGODB_URI points."""
        monkeypatch.setenv("MONGODB_URI", f"mongodb://127.0.0.1:{free_port()}/away")
        get_settings.cache_clear()
        for store in self.stores:
            store.close()
            store._uri = Store.of(get_settings())._uri

    def rows(self) -> Any:
        return self.store.database()["_fires"]
