"""A progress bar with the time left, on standard error."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress_bar(what: str, steps: int, quiet: bool = False) -> Iterator[tqdm]:
    """`bar.update()` after each step; `quiet` shows nothing."""
    form = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} · {elapsed} · {remaining} left{postfix}"
    with tqdm(total=steps, desc=f"{what:<24}", disable=quiet, file=sys.stderr, bar_format=form, ncols=100) as bar:
        yield bar
