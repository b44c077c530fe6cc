"""A plain hook around an async handler: the hook stands still while the handler is awaited.

It runs in a greenlet (gevent's, which is installed with the worker) on the same event loop; a
thread for each run would cost too much where there are 500 at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from greenlet import getcurrent, greenlet

__all__ = ["call_beside"]


async def call_beside(
    function: Callable[[Any, Any], Any], ctx: Any, behind: Callable[[Any], Awaitable[Any]]
) -> Any:
    """What the hook answers; ``behind``: awaited here, with the hook's context variables."""
    here = getcurrent()

    def call_next(other: Any = None) -> Any:
        return here.switch(behind(ctx if other is None else other))

    hook = greenlet(function, here)
    hook.gr_context = here.gr_context  # the task's own, which both may change
    answer = hook.switch(ctx, call_next)
    while not hook.dead:
        try:
            result = await answer
        except BaseException as error:  # noqa: BLE001 - the hook's to see, a cancel as well
            answer = hook.throw(type(error), error, error.__traceback__)  # else that is lost
        else:
            answer = hook.switch(result)
    return answer
