"""Started as a script in front of each program of the stack; it becomes that program.

    python -I -S launch.py PARENT_PID SIGNAL PROGRAM [ARGUMENT ...]

On Linux it first asks the kernel for SIGNAL (a number) when the supervisor dies, however it dies,
so that a killed `callboard up` leaves nothing running. This stands in a program of its own,
because code between fork and exec is not safe in a process that has threads.
"""

import os
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_parent(parent: int, number: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before the request was in place
        sys.exit(1)


def _main(parent: str, number: str, *command: str) -> None:
    if sys.platform == "linux":
        _die_with_parent(int(parent), int(number))
    os.execvp(command[0], command)  # noqa: S606 - the command comes from the supervisor


if __name__ == "__main__":
    _main(*sys.argv[1:])
