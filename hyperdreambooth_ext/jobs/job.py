"""One job: what can be told about it at any moment, shared between its worker and everybody who looks at it."""

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError
from ..images.photo import Photo
from ..personalize.personalize import Personalized, face_prompt
from .task import Task

Stage = Literal[
    "queued", "face", "predict", "finetune", "saving", "pictures", "done", "failed", "cancelled"
]  # fmt: skip
ENDED: tuple[Stage, ...] = ("done", "failed", "cancelled")
# Where each stage begins and ends on the bar.
_SHARES: dict[Stage, tuple[float, float]] = {
    "queued": (0.0, 0.0),
    "face": (0.0, 0.02),
    "predict": (0.02, 0.06),
    "finetune": (0.06, 0.80),
    "saving": (0.80, 0.82),
    "pictures": (0.82, 0.99),
    "done": (1.0, 1.0),
    "failed": (0.0, 0.0),
    "cancelled": (0.0, 0.0),
}


@dataclass(frozen=True)
class Pair:
    """Two JPEGs of one seed: without the LiDB and with it."""

    seed: int
    before: bytes = field(repr=False)
    after: bytes = field(repr=False)


@dataclass(frozen=True)
class Result:
    """A finished job. `pictures` is empty when they were left out. `size` and `cfg` are what the checkpoint was made
    for: the side in pixels and the guidance scale.

    `identity` and `identity_before` are the bundled recognizer's cosines between the photo's face and the first pair's;
    None without a score, and then `identity_words` says why.
    """

    path: Path
    file_bytes: int
    seconds: float
    steps: int
    start: str
    start_reason: str
    name: str
    trigger: str
    seed: int
    photo: bytes = field(repr=False)
    size: int = 512
    cfg: float = 7.0
    pictures: tuple[Pair, ...] = ()
    identity: float | None = None
    identity_before: float | None = None
    identity_words: str = ""

    @property
    def tag(self) -> str:
        """What brings the person into a prompt."""
        return f"<lidb:{self.name}:1>"

    @property
    def prompt(self) -> str:
        """A whole prompt with trigger and tag."""
        return f"{face_prompt(self.trigger)} {self.tag}"

    @property
    def before(self) -> bytes:
        """The first pair's picture without the LiDB, empty without pictures."""
        return self.pictures[0].before if self.pictures else b""

    @property
    def after(self) -> bytes:
        """The first pair's picture with the LiDB, empty without pictures."""
        return self.pictures[0].after if self.pictures else b""


@dataclass(frozen=True)
class JobStatus:
    """A snapshot. `step` of `steps` counts within the stage; `preview` is the newest JPEG, empty before the first.

    `message` is a sentence for the user. `can_keep`: it was interrupted, and what was learned can still be saved;
    `can_continue`: or learned on.
    """

    id: str
    name: str
    stage: Stage = "queued"
    step: int = 0
    steps: int = 0
    waiting: int = 0
    """How many jobs are before this one in the queue."""
    eta_seconds: float | None = None
    message: str = ""
    start: str = ""
    start_reason: str = ""
    photo: bytes = field(default=b"", repr=False)
    """The aligned face that is learned, a JPEG; empty until it was found."""
    preview: bytes = field(default=b"", repr=False)
    preview_step: int = 0
    can_keep: bool = False
    can_continue: bool = False
    result: Result | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.stage in ENDED

    @property
    def fraction(self) -> float:
        """How far the whole job is, from 0 to 1."""
        begin, end = _SHARES[self.stage]
        return begin + (end - begin) * (self.step / self.steps if self.steps else 0.0)


class Cancelled(Exception):
    """The job was interrupted. `learned` is what it had by then, None when that is nothing."""

    def __init__(self, learned: Personalized | None = None) -> None:
        super().__init__("interrupted")
        self.learned = learned


class Job:
    """Written by its worker and by `interrupt`; `status()` is a snapshot, safe from any thread."""

    def __init__(self, id: str, task: Task) -> None:
        self._lock = threading.Lock()
        self._status = JobStatus(id=id, name=task.name)
        self._stop = False
        self._task: Task | None = task
        self.keep = False
        """Save what was learned although it was interrupted."""
        self.learned: Personalized | None = None
        self.seconds = 0.0
        """What it has taken so far, without waiting."""

    @property
    def task(self) -> Task:
        """What was asked for. Raises UserError once the job has ended for good and the photo is forgotten."""
        if self._task is None:
            raise UserError("This job has ended: start a new one.")
        return self._task

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop

    def stop(self, keep: bool) -> None:
        """Stop within one step, and save what was learned if `keep`."""
        self.keep = self.keep or keep
        self._stop = True

    def obeyed(self) -> None:
        """It did stop, and goes on with what shall be kept: only a later interrupt counts from now."""
        self._stop = False

    def status(self) -> JobStatus:
        """Where it is."""
        with self._lock:
            return self._status

    def update(self, **changes: Any) -> JobStatus:
        """Change fields of the status."""
        with self._lock:
            self._status = replace(self._status, **changes)
            return self._status

    def forget_photo(self) -> None:
        """Keep the result, not the photo; the task's other values are needed as long as there is something to keep."""
        if self._task is not None:
            forgotten = replace(self._task, photo=Photo(self._task.photo.pixels[:0]))
            self._task = forgotten if self.learned is not None else None
