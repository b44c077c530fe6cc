"""What the front end stands on, built once per application."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import redis
from flask import Request, current_app, request

from callboard.connections.mongodb import Store
from callboard.connections.redis import connect
from callboard.errors import Forbidden, NotFound, RateLimited, SealError, Unauthorized
from callboard.registry import Registry
from callboard.runs.history import History, PastRun
from callboard.runs.listing import RunList
from callboard.runs.live import Live
from callboard.runs.record import RunRecord, is_run_id
from callboard.runs.seal import Sealer
from callboard.runs.signal_url import SignalUrls
from callboard.runs.store import Runs
from callboard.runs.waiting import WaitingRuns
from callboard.settings import Settings

from .call.limits import Kind, RateLimit
from .call.replies import Replies
from .identity.tokens import Identity, Verifier
from .runs.watching import Watching

__all__ = ["Services", "current_services", "this_request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Nothing here connects before its first use, so a server may fork after building it."""

    settings: Settings
    registry: Registry
    verifier: Verifier
    redis: redis.Redis
    store: Store
    runs: Runs
    replies: Replies
    watching: Watching
    history: History
    waiting: WaitingRuns
    signal_urls: SignalUrls
    run_list: RunList
    rate_limit: RateLimit | None

    @classmethod
    def build(
        cls, settings: Settings, registry: Registry, runs_class: type[Runs] = Runs
    ) -> Services:
        """All of it, from the settings; ``runs_class``: perhaps one whose calls are traced."""
        client = connect(settings)
        sealer = Sealer(settings.secret_keys)
        keys = settings.keys
        runs = runs_class(client, sealer, keys)
        store = Store.of(settings)
        history = History(store.database, sealer)
        replies = Replies(client, runs)
        waiting = WaitingRuns(runs, store.database, registry.actions)
        return cls(
            settings=settings,
            registry=registry,
            verifier=Verifier(settings),
            redis=client,
            store=store,
            runs=runs,
            replies=replies,
            watching=Watching(partial(_find, runs, history, waiting), runs, replies),
            history=history,
            waiting=waiting,
            signal_urls=SignalUrls(settings.secret_keys, settings.public_url),
            run_list=RunList(runs=runs, live=Live(client, sealer, keys), history=history),
            rate_limit=(
                RateLimit(settings.rate_limit, client, sealer, keys)
                if settings.rate_limit
                else None
            ),
        )

    def close(self) -> None:
        """End what was started on the way; for servers that outlive an application."""
        self.verifier.close()
        self.replies.close()
        self.redis.close()
        self.store.close()

    def is_owner(self, identity: Identity) -> bool:
        """Whether this caller is the application's owner; nobody is while it is unset."""
        owner = self.settings.owner_user_id
        return owner is not None and identity.subject == owner

    def limit_rate(self, identity: Identity | None, kind: Kind) -> None:
        """Count a request; raises `RateLimited` for a caller who sends too many."""
        if self.rate_limit:
            self.rate_limit.check(identity, kind)

    def limit_calls(self, identity: Identity | None, wanted: int) -> tuple[int, RateLimited | None]:
        """Count so many calls: how many are allowed, and the refusal of the others."""
        if self.rate_limit and wanted:
            return self.rate_limit.take(identity, "calls", wanted)
        return wanted, None

    def status_of(self, run_id: str) -> str:
        """The status of a run that was accepted a while ago."""
        record = self.runs.read(run_id)
        return record.status if record else "queued"

    def require_owner(self, identity: Identity | None) -> None:
        """Raises `Unauthorized` or `Forbidden` for everyone but the owner."""
        if identity is None:
            raise Unauthorized("no token", token_given=False)
        if not self.is_owner(identity):
            raise Forbidden("Forbidden: owner only")

    def visible_run(self, run_id: str, identity: Identity | None) -> RunRecord | PastRun:
        """The run, if this caller may see it: its own, or any as the owner.

        An anonymous run is readable by its id, which is random. Raises `NotFound`.
        """
        run = self.find_run(run_id)
        mine = run and run.caller in (None, identity and identity.subject)
        if run is None or not (mine or (identity and self.is_owner(identity))):
            raise NotFound(f"No run {run_id[:64]!r}, or none that you may see")
        return run

    def find_run(self, run_id: str) -> RunRecord | PastRun | None:
        """The run, whoever asks, or None."""
        if not is_run_id(run_id):
            return None
        return _find(self.runs, self.history, self.waiting, run_id)

    def wait_for_end(self, run_id: str, deadline: float) -> RunRecord | PastRun | None:
        """A run that another request started, as it is when it has ended or at the deadline.

        ``deadline`` is in `time.monotonic` seconds. None: the run is gone.
        """
        with self.watching.watch(run_id) as watch:
            return watch.end(deadline)


def _find(
    runs: Runs, history: History, waiting: WaitingRuns, run_id: str
) -> RunRecord | PastRun | None:
    """From its record or, once that has expired, from the history; else it may wait for one."""
    try:
        return runs.read(run_id) or history.find(run_id) or waiting.find(run_id)
    except SealError:
        past = history.find(run_id)  # where who called it stands in clear
        if past is None:
            raise
        return past


def this_request() -> Request:
    """The current request itself: behind Flask's proxy each look at it costs 0.6 us."""
    return cast(Request, request._get_current_object())  # type: ignore[attr-defined]


def current_services() -> Services:
    """The services of the current application."""
    return cast(Services, current_app.extensions["callboard"])
