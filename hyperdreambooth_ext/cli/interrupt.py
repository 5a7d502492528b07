"""Ctrl-C once stops the training and keeps what was learned; twice stops everything."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_interrupt(
    message: str = "Stopping after this step; what was learned is kept. Ctrl-C again discards it.",
) -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C was pressed; the signal's old handler comes back at the end."""
    pressed = False

    def note(_signal: int, _frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        print(f"\n{message}", file=sys.stderr)

    old = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, old)
