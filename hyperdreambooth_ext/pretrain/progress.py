"""What a build tells while it works, how it is stopped, and how it fits into the hours that it was given."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import FileError
from ..files import write_atomically
from .options import BuildOptions
from .store import Folder

Stage = Literal["faces", "prepare", "recognizer", "targets", "train", "export", "done"]
# Sampling faces may take this share of the time; evaluating and saving take so much beside the steps.
_FACES_SHARE, _BESIDE_STEPS = 0.4, 1.15

STAGE_WORDS: dict[str, str] = {
    "faces": "Generating faces", "prepare": "Preparing the faces", "recognizer": "Training the recognizers",
    "targets": "Optimizing targets", "train": "Training", "export": "Writing the file",
    "done": "Done",
}  # fmt: skip


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

    def begin(self, stage: Stage, first: int, total: int) -> Callable[..., None]:
        """How to tell of a stage that is begun or gone on with now: called with what is done, and BuildProgress's
        other fields; seconds are worked out from what was done since."""
        began = time.monotonic()

        def tell(done: int, **facts: Any) -> None:
            seconds = time.monotonic() - began
            left = seconds / (done - first) * (total - done) if done > first else None
            self.tell(BuildProgress(stage, done, total, left, **facts))

        return tell


class Budget:
    """The time that a build has; without `hours` nothing is limited. What is decided is written down, so that it is
    decided once."""

    def __init__(self, folder: Folder, options: BuildOptions) -> None:
        """Raises FileError when what was decided cannot be read."""
        self._folder, self._options, self._began = folder, options, time.monotonic()
        try:
            text = folder.plan.read_text(encoding="utf-8") if folder.plan.exists() else "{}"
            self.plan: dict = json.loads(text)
        except (OSError, ValueError) as error:
            raise FileError(f"{folder.plan} is damaged ({error}): delete it and start again.") from error
        # Other hours than before: decided anew.
        if self.plan.get("hours") != options.hours:
            self.plan = {"hours": options.hours, "spent": self.plan.get("spent", 0.0)}

    @property
    def faces(self) -> int:
        """How many faces to learn from."""
        return min(self._options.faces, self.plan.get("faces", self._options.faces))

    def spent(self) -> float:
        """Seconds that the build has taken, earlier runs included as far as they were noted."""
        return self.plan.get("spent", 0.0) + time.monotonic() - self._began

    def enough_faces(self, found: int) -> bool:
        """Whether sampling more would take time that the training needs."""
        late = bool(self._options.hours) and self.spent() > _FACES_SHARE * self._options.hours * 3600
        return late and found >= self._options.held_out + self._options.batch

    def found(self, faces: int) -> None:
        """There will be no more than so many faces."""
        if self._options.hours and faces < self._options.faces:
            self.plan["faces"] = faces

    def steps(self, seconds_per_step: Callable[[], float]) -> int:
        """How many steps to train: as asked for, or what fits into the time that is left."""
        options = self._options
        if not options.hours:
            return options.steps
        if "steps" not in self.plan:
            per_step = seconds_per_step()
            seconds = (options.hours * 3600 - self.spent()) / _BESIDE_STEPS
            self.plan["steps"] = max(1, int(seconds / per_step))
            self.note()
        return self.plan["steps"]

    def note(self) -> None:
        """Write down what was decided and spent. Raises FileError when the disk is full."""
        content = self.plan | {"spent": round(self.spent(), 1)}
        write_atomically(self._folder.plan, (json.dumps(content) + "\n").encode())
