"""What can be told about a job at any moment."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
class Result:
    """A finished job. Pictures are JPEG bytes; `before` and `after` share one seed and are empty when left out.

    `identity` and `identity_before` are cosines between the photo's face and the picture's; None without a score,
    and then `identity_words` says why.
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
    before: bytes = field(default=b"", repr=False)
    after: bytes = field(default=b"", repr=False)
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
        return f"a {self.trigger} face {self.tag}"


@dataclass(frozen=True)
class JobStatus:
    """A snapshot. `step` of `steps` counts within the stage; `preview` is the newest JPEG, empty before the first.

    `message` is a sentence for the user. `can_keep`: it was interrupted, and what was learned can still be saved.
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
