"""What the front end stands on, built once per application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import redis
from flask import current_app

from api.identity import Identity, Verifier
from api.replies import Replies
from callboard.broker import connect
from callboard.errors import NotFound
from callboard.registry import Registry
from callboard.runs import RunRecord, Runs
from callboard.seal import Sealer
from callboard.settings import Settings

__all__ = ["Services", "services"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Nothing here connects before its first use, so a server may fork after building it."""

    settings: Settings
    registry: Registry
    verifier: Verifier
    redis: redis.Redis
    runs: Runs
    replies: Replies

    @classmethod
    def build(cls, settings: Settings, registry: Registry) -> Services:
        """All of it, from the settings."""
        client = connect(settings)
        runs = Runs(client, Sealer(settings.secret_keys))
        return cls(
            settings=settings,
            registry=registry,
            verifier=Verifier(settings),
            redis=client,
            runs=runs,
            replies=Replies(client, runs),
        )

    def is_owner(self, identity: Identity) -> bool:
        """Whether this caller is the application's owner; nobody is while it is unset."""
        owner = self.settings.owner_user_id
        return owner is not None and identity.subject == owner

    def status_of(self, run_id: str) -> str:
        """The status of a run that was just accepted."""
        record = self.runs.read(run_id)
        return record.status if record else "queued"

    def visible_run(self, run_id: str, identity: Identity | None) -> RunRecord:
        """The run, if this caller may see it: its own, or any as the owner.

        An anonymous run is readable by its id, which is random. Raises `NotFound`.
        """
        record = self.runs.read(run_id)
        mine = record and record.call.caller in (None, identity and identity.subject)
        if record is None or not (mine or (identity and self.is_owner(identity))):
            raise NotFound(f"No run {run_id[:64]!r}, or none that you may see")
        return record

    def wait_for_end(self, run_id: str, deadline: float) -> bytes | None:
        """The sealed result of a run that another request started; None at the deadline.

        ``deadline`` is in `time.monotonic` seconds.
        """
        with self.replies.expect(run_id) as waiter:
            self.runs.watch(run_id, self.replies.channel)
            waiter.sealed = self.runs.results([run_id]).get(run_id)
            return self.replies.result(run_id, waiter, deadline)


def services() -> Services:
    """The services of the current application."""
    return cast(Services, current_app.extensions["callboard"])
