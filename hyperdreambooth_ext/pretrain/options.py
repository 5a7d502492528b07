"""What a build is asked for, kept in its folder so that the same command goes on where it was."""

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import FileError, UserError
from ..files import write_atomically

Precision = Literal["fp32", "bf16", "fp16"]
Kept = Literal["best", "last"]
_CHOICES = {"precision": get_args(Precision), "keep": get_args(Kept)}
MIN_FACES = 8
# These may change between two runs of one build; anything else would mix two builds into one.
CHANGEABLE = ("faces", "hours", "steps", "evaluate_every", "keep")
# What an option was called in version 0.1: folders that were begun with it and commands that name it go on.
FORMER = {
    "recogniser_steps": "recognizer_steps", "draw_batch": "sample_batch", "draw_steps": "sample_steps",
    "drawn_weight": "sampled_identity_weight", "styled": "prior_share", "style_weight": "prior_weight",
}  # fmt: skip
# What version 0.1 could do besides (experiments/README.md), with the values that leave it out.
_REMOVED = {"basis": "random", "words_weight": 0.0}


def _option(default: Any, text: str, low: float | None = None, high: float | None = None) -> Any:
    """A field with what the command line says of it and the range that a number must lie in."""
    return field(default=default, metadata={"help": text, "range": None if low is None else (low, high)})


@dataclass(frozen=True)
class BuildOptions:
    """Every option with its default, its help and its range: the command line's arguments are made from it."""

    faces: int = _option(1000, "how many to learn from", MIN_FACES, 10_000_000)
    photos: str = _option("", "a folder of photos, one face in each, instead of faces that the checkpoint samples")
    shards: str = _option("", "webdataset shards instead: a pattern such as 'data/*.tar', or URLs with {000..099}")
    hours: float = _option(0.0, "a limit, which the number of steps follows from; 0: none", 0, 10_000)
    steps: int = _option(3000, "of the training, without hours", 1, 10_000_000)
    batch: int = _option(16, "identities in a step, over all processes", 1, 4096)
    precision: Precision = _option("fp32", "fp32, bf16, fp16")
    target_steps: int = _option(0, "pre-optimize a LiDB of every face in so many steps; 0: no targets", 0, 2000)
    target_batch: int = _option(32, "identities that are pre-optimized in one pass", 1, 1024)
    warm_up: int = _option(0, "so many steps on the targets alone", 0, 10_000_000)
    beta: float = _option(0.0, "weight of the targets beside the diffusion loss; 0: it teaches alone", 0, 100)
    identity_weight: float = _option(0.1, "weight of the identity loss on noisy photos", 0, 10)
    sampled_identity_weight: float = _option(1.0, "weight of the identity loss on samples from pure noise", 0, 10)
    prior_share: float = _option(0.25, "share of the identities of a step with a prior-preservation sample, too", 0, 1)
    prior_weight: float = _option(5.0, "weight of the prior-preservation loss, which keeps style words working", 0, 100)
    recognizer_steps: int = _option(400, "steps of the first latent identity net; the second takes twice", 1, 100_000)
    lr: float = _option(1e-3, "learning rate", 1e-7, 1.0)
    ema: float = _option(0.99, "decay of the weights' moving average", 0, 0.99999)
    keep: Kept = _option("best", "the weights that the file gets: best, on the held-out faces, or last")
    evaluate_every: int = _option(250, "steps between two evaluations on the held-out faces", 1, 10_000_000)
    score_steps: int = _option(10, "sampling steps of each of their pictures", 1, 100)
    held_out: int = _option(16, "faces that are kept to measure with", 2, 256)
    size: int = _option(0, "side in pixels; 0: the checkpoint's own")
    encoder: str = _option("", "an image encoder of timm, or open_clip:NAME/WEIGHTS; empty: the bundled one")
    width: int = _option(128, "of the decoder", 16, 4096)
    depth: int = _option(2, "its layers", 1, 32)
    iterations: int = _option(2, "k: how often it refines its prediction", 1, 16)
    prompts: str = _option("", "a text file with one prompt a line to sample the faces from; empty: the bundled words")
    negative: str = _option("", "negative prompt of the sampled faces")
    sample_batch: int = _option(8, "faces that are sampled in one pass", 1, 256)
    sample_steps: int = _option(20, "sampling steps of each", 1, 200)
    cfg: float = _option(4.0, "guidance scale of the sampled faces", 1, 30)
    seed: int = _option(0, "of everything that is random", 0, 2**31)

    @property
    def samples_faces(self) -> bool:
        """Whether the checkpoint samples the faces itself."""
        return not (self.photos or self.shards)

    def checked(self) -> "BuildOptions":
        """The same options. Raises UserError for a value that cannot be."""
        for option in fields(self):
            limits, value = option.metadata["range"], getattr(self, option.name)
            if limits and not (math.isfinite(value) and limits[0] <= value <= limits[1]):
                words, (low, high) = _words(option.name), limits
                raise UserError(f"{words}: choose from {low:,g} to {high:,g}, not {value}.", option.name)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"{_words(name)}: choose {', '.join(choices)}, not {getattr(self, name)!r}.", name)
        if self.photos and self.shards:
            raise UserError("Faces come from one place: give photos or shards, not both.", "photos", "shards")
        if self.size and (self.size % 64 or not 64 <= self.size <= 2048):
            raise UserError(f"A size of {self.size} pixels cannot be made: use a multiple of 64 between 64 and 2048.")
        if self.faces < self.held_out + MIN_FACES // 2:
            raise UserError(
                f"Of these faces {self.held_out} are held out: ask for at least {self.held_out + MIN_FACES // 2}.",
                "faces", "held_out",
            )
        if (self.warm_up or self.beta) and not self.target_steps:
            raise UserError("A warm-up and beta learn from targets: give each steps, such as 40.", "target_steps")
        return self


def _words(name: str) -> str:
    """An option's name as a sentence begins with it: `prior_share` -> "Prior share"."""
    words = {"lr": "learning rate", "cfg": "guidance scale"}.get(name) or name.replace("_", " ")
    return words[0].upper() + words[1:]


@dataclass(frozen=True)
class BuiltFor:
    """The checkpoint that a build belongs to."""

    checkpoint: str
    checkpoint_hash: str
    architecture: str


def remembered(file: Path) -> tuple[BuildOptions, BuiltFor] | None:
    """What `file` keeps; None when there is none.

    Raises FileError when it is damaged, UserError for a build that learns in a way that there is no more.
    """
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        begun = {FORMER.get(name, name): value for name, value in values["options"].items()}
        removed = [name for name, without in _REMOVED.items() if begun.get(name, without) != without]
        known = {option.name for option in fields(BuildOptions)}
        options = BuildOptions(**{name: value for name, value in begun.items() if name in known}).checked()
        built_for = BuiltFor(**values["built_for"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{file} cannot be read ({error}): take another folder for a new build.") from error
    if removed:
        gone = f"{_words(removed[0]).lower()} {begun[removed[0]]}"
        raise UserError(f"{file.parent} was begun with {gone}, which there is no more: take another folder.")
    return options, built_for


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
