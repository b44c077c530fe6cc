"""The registry: every action that the actions package holds, found by importing it."""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from callboard.errors import ConfigurationError, Forbidden, Unauthorized
from callboard.schedules.check import check_schedules
from callboard.sdk.action import Action
from callboard.sdk.collection import Collection
from callboard.sdk.hooks import Hook, Hooks
from callboard.sdk.schedule import Schedule
from callboard.sdk.unknown import unknown_action

__all__ = ["Registry", "discover", "discover_here", "get_registry"]

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What an application declares: its actions by name, schedules, integrations, collections,
    hooks."""

    actions: Mapping[str, Action]
    schedules: tuple[Schedule, ...] = ()
    integrations: Mapping[str, str] = field(default_factory=dict)  # name -> who pays
    collections: Mapping[str, Collection] = field(default_factory=dict)
    hooks: Hooks = field(default_factory=Hooks)
    public: Mapping[str, Action] = field(init=False)  # those that clients know

    def __post_init__(self) -> None:
        public = {name: action for name, action in self.actions.items() if not action.internal}
        object.__setattr__(self, "public", public)

    @property
    def queues(self) -> tuple[str, ...]:
        """The Celery queues that the actions name, sorted."""
        return tuple(sorted({action.queue for action in self.actions.values()}))

    @property
    def message_queues(self) -> tuple[str, ...]:
        """The queues of wake-ups, sorted: those of async actions have lists of their own."""
        return tuple(sorted({action.message_queue for action in self.actions.values()}))

    def get(self, name: str) -> Action:
        """The action of this name; raises `UnknownAction` with the nearest names."""
        found = self.actions.get(name)
        if found is None:
            raise unknown_action(name, self.actions)
        return found

    def permitted(self, name: str, caller: str | None, owner: str | None) -> Action:
        """The action, if ``caller`` (None: an anonymous one) may call it as a client.

        ``owner``: the application's owner; nobody is while it is None. Raises `Unauthorized`,
        `UnknownAction` (which an anonymous caller does not learn) and `Forbidden`. An internal
        action is as unknown to clients as one that there is not.
        """
        action = self.actions.get(name)
        if action is None or action.internal:
            if caller is None:
                raise Unauthorized("no token", token_given=False)
            raise unknown_action(name, self.public)
        _require(action, caller, owner)
        return action

    def startable(self, name: str, caller: str | None, owner: str | None) -> Action:
        """The action, if code of the application's own may start it for ``caller``.

        As `permitted`, but internal actions are there, and for every caller.
        """
        action = self.get(name)
        if not action.internal or action.owner_only:
            _require(action, caller, owner)
        return action


def _require(action: Action, caller: str | None, owner: str | None) -> None:
    """Raises `Unauthorized` or `Forbidden` where the action is not for this caller."""
    if caller is None and not action.anonymous:
        raise Unauthorized("no token", token_given=False)
    if action.owner_only and (owner is None or caller != owner):
        raise Forbidden("Forbidden: owner only")


def discover(module_name: str) -> Registry:
    """Import the actions package, each of its modules, and collect what they declare.

    Raises `ConfigurationError` with file and line: a module that does not import, two actions
    of one name, annotations that cannot work, a declaration of the wrong type, a schedule that
    cannot work.
    """
    _prefer_first_folder(module_name.partition(".")[0])
    modules = list(_import_all(module_name))
    actions: dict[str, Action] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Action) and value is not actions.get(value.name):
                _add(actions, value)
    for action in actions.values():
        action.check()
    if not actions:
        raise ConfigurationError(
            f"{module_name}: holds no action. Decorate a function with @callboard.action in a "
            f"module of it, or name another package in CALLBOARD_ACTIONS."
        )
    registry = Registry(
        actions=actions,
        schedules=tuple(_declared(modules, module_name, "schedules", "SCHEDULES", list)),
        integrations=_declared(modules, module_name, "integrations", "INTEGRATIONS", dict),
        collections=_declared(modules, module_name, "collections", "COLLECTIONS", dict),
        hooks=_hooks(modules, f"{module_name}.hooks"),
    )
    if registry.schedules:
        where = str(sys.modules[f"{module_name}.schedules"].__file__)
        check_schedules(registry.schedules, actions, where)
    return registry


def _add(actions: dict[str, Action], new: Action) -> None:
    if new.name in actions:
        raise ConfigurationError(
            f"{new.where}: action {new.name!r} is already defined at {actions[new.name].where}"
        )
    actions[new.name] = new


def _prefer_first_folder(package: str) -> None:
    """A folder without ``__init__.py`` that comes first on the path is the package.

    Python itself would take one with ``__init__.py`` that comes later, such as an installed
    package of the name ``actions``.
    """
    known = not package or package in sys.modules
    pythons = None if known else importlib.util.find_spec(package)
    if pythons is None or pythons.origin is None:
        return
    for entry in sys.path:
        found = PathFinder.find_spec(package, [entry])
        if found is not None and found.origin is not None:
            return
        if found is not None and _is_package(folder := Path(entry, package).absolute()):
            own = ModuleSpec(package, None, is_package=True)
            own.submodule_search_locations = [str(folder)]
            sys.modules[package] = importlib.util.module_from_spec(own)
            return


def _import_all(module_name: str, above: frozenset[Path] = frozenset()) -> Iterator[ModuleType]:
    """The module and every one below it, in folders without ``__init__.py`` as well.

    ``above``: the folders that it lies in; a link back to one of them is not followed.
    """
    module = _import(module_name)
    yield module
    folders = [Path(folder).resolve() for folder in getattr(module, "__path__", [])]
    if above.isdisjoint(folders):
        for name in sorted(_names_in(folders)):
            yield from _import_all(f"{module_name}.{name}", above.union(folders))


def _names_in(folders: list[Path]) -> set[str]:
    """The modules and packages in these folders; a folder that holds Python is a package."""
    names = {found.name for found in pkgutil.iter_modules([str(folder) for folder in folders])}
    for folder in filter(Path.is_dir, folders):
        names |= {entry.name for entry in folder.iterdir() if _is_package(entry)}
    return names - {"__main__"}


def _is_package(entry: Path) -> bool:
    """Whether the entry of a folder is one that holds Python, with ``__init__.py`` or without."""
    importable = entry.name.isidentifier() and entry.name != "__pycache__"
    return importable and entry.is_dir() and next(entry.rglob("*.py"), None) is not None


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ConfigurationError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        place = _place_of(error)
        kind = type(error).__name__
        raise ConfigurationError(
            f"{place or name}: cannot import {name}: {kind}: {error}"
        ) from error


def _place_of(error: BaseException) -> str | None:
    """``file:line`` of the last line outside the import machinery and this package."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and "importlib" not in frame.filename
        and not Path(frame.filename).is_relative_to(_HERE)
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def _declared(modules: list[ModuleType], package: str, module: str, name: str, kind: type) -> Any:
    for found in modules:
        if found.__name__ == f"{package}.{module}" and hasattr(found, name):
            value = getattr(found, name)
            if not isinstance(value, kind):
                raise ConfigurationError(
                    f"{found.__file__}: {name} must be a {kind.__name__}, not {value!r:.80}"
                )
            return value
    return kind()


def _hooks(modules: list[ModuleType], place: str) -> Hooks:
    """Those of the module ``place``, in its order; one that is nowhere but in another is refused:
    it would never be called."""
    found: dict[str, list[Hook]] = {
        module.__name__: [value for value in vars(module).values() if isinstance(value, Hook)]
        for module in modules
    }
    ours = list(dict.fromkeys(found.get(place, ())))
    for module, hooks in found.items():
        if stray := next((hook for hook in hooks if hook not in ours), None):
            raise ConfigurationError(
                f"{stray.where}: @hooks.{stray.kind} {stray.name!r} stands in {module}; hooks are "
                f"those of {place}: define it there, or import it there"
            )
    return Hooks.of(ours)


def discover_here(module_name: str) -> Registry:
    """`discover`, with the working directory first on the import path, as under ``python -m``: so
    the application's own ``actions`` folder is found by every command."""
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    return discover(module_name)


@cache
def get_registry() -> Registry:
    """The registry of this process, from CALLBOARD_ACTIONS; `ConfigurationError` as `discover`."""
    from callboard.settings import get_settings

    settings = get_settings()
    registry = discover_here(settings.actions)
    if registry.schedules and settings.owner_user_id is None:
        raise ConfigurationError(
            f"{settings.actions}.schedules: schedules run as the owner: set OWNER_USER_ID "
            f"(or take SCHEDULES away)"
        )
    return registry
