"""Callboard, as `callboard up` runs it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from benchmarks.jobs import WAIT
from benchmarks.stacks.base import HOST, Request, Site, Stack
from callboard.sdk.options import DEFAULT_QUEUE
from callboard.settings import default_workers
from callboard.stack.environment import development_environment
from callboard.stack.process import Program
from callboard.stack.programs import Application
from callboard.stack.secrets import keep_secrets
from callboard.stack.tokens import mint_token

__all__ = [
    "OURS",
    "OURS_ASYNC",
    "OURS_ASYNC_MANY",
    "application",
    "signed_request",
    "waiting_programs",
]


def application(
    site: Site, actions: str = "benchmarks.actions_bench", **settings: str
) -> Application:
    """The processes of Callboard at this site."""
    environment = {
        **os.environ,
        **development_environment({}, keep_secrets(site.folder)),
        **site.environment,
        "CALLBOARD_ACTIONS": actions,
        **settings,
    }
    return Application(
        folder=site.folder,
        host=HOST,
        port=site.port,
        flower_port=0,  # not started
        workers=default_workers(),
        environment=environment,
    )


def _programs(site: Site) -> Sequence[Program]:
    return [application(site).worker([DEFAULT_QUEUE]), application(site).web()]


def waiting_programs(site: Site, **settings: str) -> Sequence[Program]:
    """The processes that run the job that waits; ``settings``: CALLBOARD_... variables."""
    waiting = application(site, "benchmarks.actions_waiting", **settings)
    return [waiting.worker([DEFAULT_QUEUE]), waiting.web()]


def signed_request(site: Site, job: str) -> Request:
    token = mint_token("bench", keep_secrets(site.folder).jwt_secret)
    return Request(path=f"/api/actions/{job}", headers={"Authorization": f"Bearer {token}"})


OURS = Stack(
    key="callboard",
    name="Callboard",
    kind="ours",
    settings=(
        "the API and the worker of `callboard up` with its defaults (gunicorn gevent, 1 process; "
        "celery prefork, 2 children per core); every call verifies a JWT, seals its params and "
        "keeps a run record"
    ),
    programs=_programs,
    request=signed_request,
)

OURS_ASYNC = Stack(
    key="callboard-async",
    name="Callboard, async",
    kind="ours",
    settings=(
        "the same; the handler is async: one process of the worker runs 500 at once, beside the "
        "children, which have nothing to do here"
    ),
    programs=waiting_programs,
    request=signed_request,
    jobs=(WAIT,),
)

OURS_ASYNC_MANY = replace(
    OURS_ASYNC,
    key="callboard-async-2000",
    name="Callboard, async, 2,000",
    settings="the same with CALLBOARD_ASYNC_RUNS=2000: as many at once in the one process",
    programs=partial(waiting_programs, CALLBOARD_ASYNC_RUNS="2000"),
)
