"""``ctx.schedules``: schedules that an application keeps for itself, such as one for each user."""

from __future__ import annotations

from typing import Any, Literal

from callboard.sdk.results import ActionResult

__all__ = ["ActionSchedules", "AsyncActionSchedules"]


class ActionSchedules:
    """Of a plain handler. Names are the application's: put the user's id into them."""

    def __init__(self, timetable: Any) -> None:
        self._timetable = timetable

    def put(
        self,
        name: str,
        action: str,
        *,
        every_minutes: int | None = None,
        cron: str | None = None,
        timezone: str | None = None,
        params: Any = None,
        as_owner: bool = False,
        catch_up: Literal["none", "last"] = "last",
        overlap: Literal["skip", "allow"] = "skip",
    ) -> ActionResult[dict[str, Any]]:
        """Have the action run at planned times: ``{"name", "nextFire"}``.

        One of this name is replaced; its pause, and where it stands unless its timing changes,
        stay. It runs as this run's caller, without a token, or as the owner. Within a transaction
        it is there if and only if the transaction commits.
        """
        answer: ActionResult[dict[str, Any]] = self._timetable.put(
            name,
            action,
            {
                "every_minutes": every_minutes, "cron": cron, "timezone": timezone,
                "params": params, "as_owner": as_owner, "catch_up": catch_up, "overlap": overlap,
            },
        )  # fmt: skip
        return answer

    def remove(self, name: str) -> ActionResult[dict[str, Any]]:
        """It fires no more: ``{"removed"}``, False where there is none."""
        answer: ActionResult[dict[str, Any]] = self._timetable.remove(name)
        return answer

    def get(self, name: str) -> ActionResult[dict[str, Any]]:
        """What was put, with ``paused``, ``lastFire`` and ``nextFire``; or a failure."""
        answer: ActionResult[dict[str, Any]] = self._timetable.get(name)
        return answer


class AsyncActionSchedules:
    """`ActionSchedules`, each call awaited."""

    def __init__(self, timetable: Any) -> None:
        self._timetable = timetable

    async def put(
        self,
        name: str,
        action: str,
        *,
        every_minutes: int | None = None,
        cron: str | None = None,
        timezone: str | None = None,
        params: Any = None,
        as_owner: bool = False,
        catch_up: Literal["none", "last"] = "last",
        overlap: Literal["skip", "allow"] = "skip",
    ) -> ActionResult[dict[str, Any]]:
        """Have the action run at planned times: `ActionSchedules.put`."""
        answer: ActionResult[dict[str, Any]] = await self._timetable.put(
            name,
            action,
            {
                "every_minutes": every_minutes, "cron": cron, "timezone": timezone,
                "params": params, "as_owner": as_owner, "catch_up": catch_up, "overlap": overlap,
            },
        )  # fmt: skip
        return answer

    async def remove(self, name: str) -> ActionResult[dict[str, Any]]:
        """It fires no more: `ActionSchedules.remove`."""
        answer: ActionResult[dict[str, Any]] = await self._timetable.remove(name)
        return answer

    async def get(self, name: str) -> ActionResult[dict[str, Any]]:
        """What was put: `ActionSchedules.get`."""
        answer: ActionResult[dict[str, Any]] = await self._timetable.get(name)
        return answer
