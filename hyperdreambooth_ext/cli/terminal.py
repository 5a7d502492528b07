"""The terminal and the process: a progress bar on standard error, Ctrl-C, and how much memory was needed."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress_bar(what: str, steps: int, quiet: bool = False) -> Iterator[tqdm]:
    """`bar.update()` after each step; `quiet` shows nothing."""
    form = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} · {elapsed} · {remaining} left{postfix}"
    with tqdm(total=steps, desc=f"{what:<24}", disable=quiet, file=sys.stderr, bar_format=form, ncols=100) as bar:
        yield bar


@contextmanager
def stop_on_interrupt(
    message: str = "Stopping after this step; what was learned is kept. Ctrl-C again discards it.",
) -> Iterator[Callable[[], bool]]:
    """Ctrl-C once stops and keeps what was learned, twice stops everything. Yields a function that says whether it was
    pressed; the signal's old handler comes back at the end."""
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
