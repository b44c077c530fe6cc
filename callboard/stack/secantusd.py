"""Started as a script: SecantusDB's own program, made sure to hear SIGTERM.

    python -P secantusd.py --config FILE [--auth]

Its main thread waits on a lock without bound. A signal that comes in just before it begins to
wait is noted and handled when the next signal wakes it: without a next one, never (seen in one
stop of six). The alarm is that next signal.
"""

import signal
import sys

INTERVAL = 0.5  # seconds


def _main() -> int:
    from secantus.cli import main  # type: ignore[import-untyped]

    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)
    try:
        return int(main())
    finally:  # without its handler, which goes first when Python ends, the alarm kills
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    sys.exit(_main())
