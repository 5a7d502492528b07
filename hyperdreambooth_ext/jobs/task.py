"""What a user asks for: one photo, a name, a quality, and whatever was changed under "Advanced"."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from ..errors import UserError
from ..files import checked_name
from ..lidb.file import MAX_RANK
from ..personalize.finetune import FinetuneOptions
from ..personalize.personalize import Request
from ..personalize.starts import STARTS, Start

Quality = Literal["fast", "balanced", "best"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
PRESETS: dict[Quality, FinetuneOptions] = {
    "fast": FinetuneOptions(steps=30),
    "balanced": FinetuneOptions(),
    "best": FinetuneOptions(steps=240, rank=4, lr=0.02),
}
MAX_STEPS = 2000
MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Task:
    """One personalization. `photo` is RGB uint8 [H, W, 3]; None takes what the quality or the checkpoint says.

    `hypernetwork` names a file in the hypernetworks' folders, "" the one that fits the checkpoint best. `face` counts
    from the largest face; `preview_every` is in iterations, 0 for none; `seed` is that of the training
    and of the before/after pictures.
    """

    photo: np.ndarray = field(repr=False)
    name: str
    quality: Quality = "balanced"
    start: Start | None = None
    hypernetwork: str = ""
    steps: int | None = None
    rank: int | None = None
    lr: float | None = None
    text: bool = False
    face: int = 1
    seed: int = 0
    size: int | None = None
    thumbnail: bool = True
    overwrite: bool = False
    preview_every: int = 20
    picture_steps: int = 25
    """Sampling steps of each of the two pictures."""

    def checked(self) -> "Task":
        """The same task with a clean name. Raises UserError for a value that cannot be."""
        if self.quality not in QUALITIES:
            raise UserError(f"The quality {self.quality!r} is not known: choose fast, balanced or best.")
        if self.start is not None and self.start not in STARTS:
            raise UserError(f"The start {self.start!r} is not known: choose hypernetwork, gradient or zero.")
        if self.hypernetwork and self.start in ("gradient", "zero"):
            raise UserError(f"The {self.start} start takes no hypernetwork: set one of the two back to Automatic.")
        _within("The number of iterations", self.steps, 1, MAX_STEPS)
        _within("The rank", self.rank, 1, MAX_RANK)
        _within("The face's number", self.face, 1, 100)
        _within("The seed", self.seed, 0, MAX_SEED)
        _within("The number of iterations between previews", self.preview_every, 0, MAX_STEPS)
        _within("The number of sampling steps", self.picture_steps, 1, 200)
        if self.lr is not None and not (math.isfinite(self.lr) and 0 < self.lr <= 1):
            raise UserError(f"A learning rate of {self.lr} cannot be used: choose one above 0 and up to 1.")
        if self.size is not None and (self.size % 64 or not 64 <= self.size <= 2048):
            raise UserError(f"A size of {self.size} pixels cannot be made: use a multiple of 64 between 64 and 2048.")
        return replace(self, name=checked_name(self.name))

    def options(self) -> FinetuneOptions:
        """The quality's options with what was changed."""
        preset = PRESETS[self.quality]
        return replace(
            preset,
            steps=preset.steps if self.steps is None else self.steps,
            rank=preset.rank if self.rank is None else self.rank,
            lr=preset.lr if self.lr is None else self.lr,
            text=self.text,
        )

    def request(self) -> Request:
        """The task as the main job takes it."""
        return Request(
            name=self.name,
            start=self.start,
            options=self.options(),
            seed=self.seed,
            size=self.size,
            face=self.face,
            thumbnail=self.thumbnail,
        )


def _within(what: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise UserError(f"{what} is {value}: choose one from {low} to {high}.")
