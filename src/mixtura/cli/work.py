"""What is shown of work that lasts: what it is, and the time it has taken or still needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mixtura.cli.numbers import format_duration
from mixtura.cli.tables import make_console

#: seconds after which work is shown, and seconds between two lines where there is no terminal
SOON, LATER = 1.5, 30.0


@contextmanager
def at_work(work: str) -> Iterator[Callable[[float], object]]:
    """Work that lasts longer than ``SOON`` seconds is shown: on a terminal by a line that moves, elsewhere by one line, and by
    another every ``LATER`` seconds. Yields a function that takes the share that is done, for work that knows it."""
    console, over, began, shares = make_console(stderr=True), threading.Event(), time.monotonic(), [0.0]

    def state() -> str:
        share, spent = shares[-1], time.monotonic() - began
        if share:
            return f"{work}: {share:.0%}, {format_duration(spent / share - spent)} left"
        return f"{work}: {format_duration(spent)} so far"

    def watch() -> None:
        if over.wait(SOON):
            return
        if not console.is_terminal:
            console.print(state())
            while not over.wait(LATER):
                console.print(state())
            return
        with console.status(state()) as status:
            while not over.wait(0.25):
                status.update(state())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield shares.append
    finally:
        over.set()
        watcher.join()
