"""A process that is forked while another thread writes its log can write, too."""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import ExitStack

from forked import exit_code

from callboard.log.stream import LineStream

LINE = 1_000_000  # characters, more than a pipe takes


def test_a_fork_in_the_middle_of_a_line_leaves_the_log_usable() -> None:
    read, write = os.pipe()
    forks, codes = threading.Event(), []
    os.register_at_fork(before=forks.set)
    with ExitStack() as opened:
        opened.callback(os.close, read)
        stream = opened.enter_context(os.fdopen(write, "w"))
        log = LineStream(stream)

        def fork() -> None:
            codes.append(exit_code(write))

        def write() -> None:
            signal.alarm(30)  # rather than for ever
            log.info("of the child")

        writer = threading.Thread(target=log.info, args=("x" * LINE,), daemon=True)
        writer.start()
        received = os.read(read, 1)  # it writes, and nobody reads on
        forking = threading.Thread(target=fork, daemon=True)
        forking.start()
        assert forks.wait(60)
        while forking.is_alive():
            if select.select([read], [], [], 0.1)[0]:
                received += os.read(read, 65_536)
    assert codes == [0]
    assert received == b"x" * LINE + b"\nof the child\n"
