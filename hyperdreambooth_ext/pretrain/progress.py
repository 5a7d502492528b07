"""What a build tells while it works, and how it is stopped."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Stage = Literal["faces", "prepare", "recognizer", "basis", "targets", "train", "export", "done"]


class Paused(Exception):
    """It was asked to stop. Everything that was made is in the folder; the same build goes on from there."""


@dataclass(frozen=True)
class BuildProgress:
    """`done` of `total` within the stage; `eta_seconds` for the rest of this stage; `sheet` is the newest picture
    sheet; `score` the newest held-out figures."""

    stage: Stage
    done: int
    total: int
    eta_seconds: float | None = None
    message: str = ""
    sheet: Path | None = None
    score: dict[str, float] | None = None


@dataclass(frozen=True)
class Reporter:
    """`tell` gets the progress, `should_pause` is asked between any two steps."""

    tell: Callable[[BuildProgress], None] = lambda progress: None
    should_pause: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """Raises Paused when the build shall stop."""
        if self.should_pause():
            raise Paused


class Clock:
    """Seconds left in a stage, from what was done since it was begun or gone on with."""

    def __init__(self, first: int, total: int) -> None:
        self._began, self._first, self._total = time.monotonic(), first, total

    def left(self, done: int) -> float | None:
        """None before the first step."""
        if done <= self._first:
            return None
        return (time.monotonic() - self._began) / (done - self._first) * (self._total - done)
