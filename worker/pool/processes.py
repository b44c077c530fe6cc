"""What Linux can promise about processes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import signal
import sys
from pathlib import Path
from threading import get_ident

import structlog

__all__ = ["begin_child", "die_with_parent", "half_imported"]

_PR_SET_PDEATHSIG = 1

_log = structlog.get_logger("callboard.worker")


def begin_child(parent: int) -> None:
    """First of all in a process that the worker has forked. Ends it, to be replaced, if it is
    unsound.

    ``parent``: the id of the worker's main process.
    """
    die_with_parent(parent)
    if modules := half_imported():
        _log.warning("replaced: forked in the middle of an import", modules=modules)
        os._exit(1)
    _bound_memory()
    _die_first()
    gc.freeze()  # what the main process had made stays: the collector need not look at it


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux; elsewhere nothing).

    A child that outlives its worker would go on with a run that another worker takes over.
    ``parent``: its process id. Had it died before the kernel was told, this process ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def _bound_memory(share: float = 0.75) -> None:
    """Let this process have at most ``share`` of the machine's (or the container's) memory.

    A handler that wants more gets a MemoryError, which ends its run; without the bound the
    kernel would end some process of its own choice.
    """
    limit = int(_memory() * share)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _die_first(score: int = 500) -> None:
    """Where memory runs out nevertheless, have the kernel end this process before others (Linux).

    Its run starts again; the API, the worker itself or a database beside it would be missed more.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(score))


def half_imported() -> list[str]:
    """In a forked process: the modules that another thread of its parent was about to import.

    That thread is not there, so these imports never end, and who imports such a module waits for
    ever. `importlib` keeps a lock for each import under way, and does not set them back at a fork.
    """
    locks = getattr(importlib._bootstrap, "_module_locks", {})
    owners = {name: getattr(lock(), "owner", None) for name, lock in list(locks.items())}
    return sorted(name for name, owner in owners.items() if owner not in (None, get_ident()))


def _memory() -> int:
    """Bytes: the physical memory, or what the control group allows if that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return physical
    return min(physical, int(allowed)) if allowed.isdecimal() else physical
