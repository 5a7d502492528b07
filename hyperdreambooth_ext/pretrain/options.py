"""What a build is asked for, kept in its folder so that the same command goes on where it was."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

from ..errors import FileError, UserError
from ..files import write_atomically

Precision = Literal["fp32", "bf16", "fp16"]
BasisKind = Literal["random", "learned", "pca", "gradient"]
Kept = Literal["best", "last"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BASES: tuple[BasisKind, ...] = get_args(BasisKind)
KEPT: tuple[Kept, ...] = get_args(Kept)
MIN_FACES = 8
# These may change between two runs of one build; anything else would mix two builds into one.
CHANGEABLE = ("faces", "hours", "steps", "evaluate_every", "keep")
# Names that builds of version 0.1.0 were begun with.
_FORMER = {"recogniser_steps": "recognizer_steps"}
_RANGES: dict[str, tuple[float, float]] = {
    "faces": (MIN_FACES, 10_000_000), "held_out": (2, 256), "draw_batch": (1, 256), "draw_steps": (1, 200),
    "cfg": (1, 30), "target_steps": (0, 2000), "target_batch": (1, 1024), "width": (16, 4096), "depth": (1, 32),
    "iterations": (1, 16), "steps": (1, 10_000_000),
    "basis_people": (2, 100_000), "batch": (1, 4096), "warm_up": (0, 10_000_000), "lr": (1e-7, 1.0),
    "identity_weight": (0, 10), "drawn_weight": (0, 10), "words_weight": (0, 1000), "styled": (0, 1),
    "style_weight": (0, 100),
    "recognizer_steps": (1, 100_000), "ema": (0, 0.99999),
    "evaluate_every": (1, 10_000_000),
    "score_steps": (1, 100), "seed": (0, 2**31), "hours": (0, 10_000), "beta": (0, 100),
}  # fmt: skip


@dataclass(frozen=True)
class BuildOptions:
    """`photos` or `shards` take the place of faces that the checkpoint draws; `prompts` names a text file of prompts to
    draw them from, "" takes the bundled words; `size` 0 is the checkpoint's own.

    `target_steps` 0 leaves the targets out (β = 0): the diffusion loss teaches alone. With targets the first `warm_up`
    steps learn from them alone, and `beta` is their weight after that. `hours` 0 sets no limit; otherwise the number of
    steps follows from what the first ones take. `encoder` "" is the bundled image encoder. `basis_people` faces are
    what the PCA and the gradient-informed basis are made of. `identity_weight` is that of the identity loss of noisy
    photos, `drawn_weight` that of drawings from pure noise, `words_weight` that of what the checkpoint makes of the
    words that it drew a face from. `styled` is the share of the people of a step who are also asked for in a style, so
    that style words keep their meaning; `style_weight` is what that counts. `keep` says which weights the file gets:
    those that were best on the held-out faces, or those after the last step.
    """

    faces: int = 1000
    photos: str = ""
    shards: str = ""
    size: int = 0
    held_out: int = 16
    draw_batch: int = 8
    draw_steps: int = 20
    cfg: float = 4.0
    prompts: str = ""
    negative: str = ""
    encoder: str = ""
    basis: BasisKind = "random"
    basis_people: int = 192
    width: int = 128
    depth: int = 2
    iterations: int = 2
    target_steps: int = 0
    target_batch: int = 32
    warm_up: int = 0
    beta: float = 0.0
    steps: int = 3000
    batch: int = 16
    lr: float = 1e-3
    identity_weight: float = 0.1
    drawn_weight: float = 1.0
    words_weight: float = 0.0
    styled: float = 0.25
    style_weight: float = 5.0
    recognizer_steps: int = 400
    precision: Precision = "fp32"
    ema: float = 0.99
    keep: Kept = "best"
    evaluate_every: int = 250
    score_steps: int = 10
    hours: float = 0.0
    seed: int = 0

    @property
    def draws(self) -> bool:
        """Whether the checkpoint draws the faces itself."""
        return not (self.photos or self.shards)

    def checked(self) -> "BuildOptions":
        """The same options. Raises UserError for a value that cannot be."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not math.isfinite(value) or not low <= value <= high:
                raise UserError(f"{_words(name)}: choose from {low:,g} to {high:,g}, not {value}.", name)
        if self.photos and self.shards:
            raise UserError("Faces come from one place: give photos or shards, not both.", "photos", "shards")
        for name, choices in (("precision", PRECISIONS), ("basis", BASES), ("keep", KEPT)):
            if getattr(self, name) not in choices:
                raise UserError(f"{_words(name)}: choose {', '.join(choices)}, not {getattr(self, name)!r}.", name)
        if self.size and (self.size % 64 or not 64 <= self.size <= 2048):
            raise UserError(f"A size of {self.size} pixels cannot be made: use a multiple of 64 between 64 and 2048.")
        if self.faces < self.held_out + MIN_FACES // 2:
            raise UserError(
                f"Of these faces {self.held_out} are held out: ask for at least {self.held_out + MIN_FACES // 2}.",
                "faces", "held_out",
            )
        if self.words_weight and not self.draws:
            raise UserError("Only faces that the checkpoint drew come with words.", "words_weight")
        if self.basis == "pca" and not self.target_steps:
            raise UserError("The PCA basis is made of targets: give each some steps, such as 40.", "target_steps")
        if self.basis == "learned" and (self.warm_up or self.beta):
            raise UserError("Targets belong to one basis, and a learned one moves: use no targets.", "warm_up", "beta")
        if (self.warm_up or self.beta) and not self.target_steps:
            raise UserError("A warm-up and beta learn from targets: give each steps, such as 40.", "target_steps")
        return self


def _words(name: str) -> str:
    """An option's name as a sentence begins with it."""
    return name.replace("_", " ").capitalize()


@dataclass(frozen=True)
class BuiltFor:
    """The checkpoint that a build belongs to."""

    checkpoint: str
    checkpoint_hash: str
    architecture: str


def remembered(file: Path) -> tuple[BuildOptions, BuiltFor] | None:
    """What `file` keeps; None when there is none. Raises FileError when it is damaged."""
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        known = {field.name for field in fields(BuildOptions)}
        begun = {_FORMER.get(key, key): value for key, value in values["options"].items()}
        options = BuildOptions(**{key: value for key, value in begun.items() if key in known})
        return options.checked(), BuiltFor(**values["built_for"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{file} cannot be read ({error}): take another folder for a new build.") from error


def settle(file: Path, wanted: dict, built_for: BuiltFor) -> BuildOptions:
    """The options of the build in `file`'s folder with `wanted` (what was asked for by name), remembered from now on.

    Raises UserError when they do not go together with how the build was begun.
    """
    known = remembered(file)
    if known is None:
        options = BuildOptions(**wanted).checked()
    else:
        begun, whose = known
        if whose.checkpoint_hash != built_for.checkpoint_hash or whose.architecture != built_for.architecture:
            raise UserError(
                f"{file.parent} was begun with the checkpoint {whose.checkpoint}: load it, or take another folder."
            )
        for name, value in wanted.items():
            if name not in CHANGEABLE and getattr(begun, name) != value:
                raise UserError(
                    f"{file.parent} was begun with {_words(name).lower()} {getattr(begun, name)}: keep that, or take "
                    "another folder.",
                    name,
                )
        options = replace(begun, **wanted).checked()
    content = {"options": asdict(options), "built_for": asdict(built_for)}
    write_atomically(file, (json.dumps(content, indent=2) + "\n").encode())
    return options
