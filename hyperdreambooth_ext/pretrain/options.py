"""What a build is asked for, kept in its folder so that the same command goes on where it was."""

import json
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal

from ..errors import FileError, UserError
from ..files import write_atomically
from ..personalize.options import check, option, options_of

Precision = Literal["fp32", "bf16", "fp16"]
Kept = Literal["best", "last"]
Part = Literal["faces", "targets", "train", "export"]
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
_option = partial(option, shown=("cli",))
_shown = partial(option, shown=("tab", "cli"))


@dataclass(frozen=True)
class BuildOptions:
    """Every option with its default, its help and its range: command line, tab and docs/options.md are made from it."""

    faces: int = _shown(1000, "How many to learn from.", MIN_FACES, 10_000_000)
    photos: str = _shown("", "A folder of photos on this machine, one face in each, instead of sampled faces.")
    shards: str = _option("", "Webdataset shards instead: a pattern such as 'data/*.tar', or URLs with {000..099}.")
    hours: float = _shown(0.0, "Time limit, which sets the number of steps; 0: none.", 0, 10_000)
    steps: int = _option(3000, "Of the training, where no hours are given.", 1, 10_000_000)
    batch: int = _shown(16, "Identities in a step, over all processes.", 1, 4096)
    precision: Precision = _option("fp32", "Of the numbers in the training.")
    target_steps: int = _option(0, "Pre-optimize a LiDB of every face in so many steps; 0: no targets.", 0, 2000)
    target_batch: int = _option(32, "Identities that are pre-optimized in one pass.", 1, 1024)
    warm_up: int = _option(0, "So many steps on the targets alone.", 0, 10_000_000)
    beta: float = _option(0.0, "Weight of the targets beside the diffusion loss; 0: it teaches alone.", 0, 100)
    identity_weight: float = _option(0.1, "Weight of the identity loss on noisy photos.", 0, 10)
    sampled_identity_weight: float = _option(1.0, "Weight of the identity loss on samples from pure noise.", 0, 10)
    prior_share: float = _option(0.25, "Share of the identities of a step with a prior-preservation sample, too.", 0, 1)
    prior_weight: float = _option(5.0, "Weight of the prior-preservation loss, which keeps style words alive.", 0, 100)
    recognizer_steps: int = _option(400, "Steps of the first latent identity net; the second takes twice.", 1, 100_000)
    lr: float = _option(1e-3, "Of the training.", 1e-7, 1.0, label="Learning rate")
    ema: float = _option(0.99, "Decay of the weights' moving average.", 0, 0.99999)
    keep: Kept = _option("best", "The weights that the file gets: best, on the held-out faces, or last.")
    evaluate_every: int = _option(250, "Steps between two evaluations on the held-out faces.", 1, 10_000_000)
    score_steps: int = _option(10, "Sampling steps of each of their pictures.", 1, 100)
    held_out: int = _option(16, "Faces that are kept to measure with.", 2, 256)
    size: int = _shown(0, "0: the checkpoint's.", 0, 2048, multiple=64, label="Size in pixels")
    encoder: str = _option("", "An image encoder of timm, or open_clip:NAME/WEIGHTS; empty: the bundled one.")
    width: int = _option(128, "Width of the decoder.", 16, 4096)
    depth: int = _option(2, "Layers of the decoder.", 1, 32)
    iterations: int = _option(2, "k: how often it refines its prediction.", 1, 16)
    prompts: str = _option("", "A text file with one prompt a line to sample the faces from; empty: the bundled words.")
    negative: str = _option("", "Negative prompt of the sampled faces.")
    sample_batch: int = _option(8, "Faces that are sampled in one pass.", 1, 256)
    sample_steps: int = _option(20, "Sampling steps of each.", 1, 200)
    cfg: float = _option(4.0, "Of the sampled faces.", 1, 30, label="Guidance scale")
    seed: int = _option(0, "Of everything that is random.", 0, 2**31)

    @property
    def samples_faces(self) -> bool:
        """Whether the checkpoint samples the faces itself."""
        return not (self.photos or self.shards)

    def checked(self) -> "BuildOptions":
        """The same options. Raises UserError for a value that cannot be."""
        check(self)
        if self.photos and self.shards:
            raise UserError("Faces come from one place: give photos or shards, not both.", "photos", "shards")
        fewest = self.held_out + MIN_FACES // 2
        if self.faces < fewest:
            sentence = f"Of these faces {self.held_out} are held out: ask for at least {fewest}."
            raise UserError(sentence, "faces", "held_out")
        if (self.warm_up or self.beta) and not self.target_steps:
            raise UserError("A warm-up and beta learn from targets: give each steps, such as 40.", "target_steps")
        return self


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
        gone = f"{removed[0].replace('_', ' ')} {begun[removed[0]]}"
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
            begun_with = f"{file.parent} was begun with the checkpoint {whose.checkpoint}"
            raise UserError(f"{begun_with}: load it, or take another folder.")
        for name, value in wanted.items():
            if name not in CHANGEABLE and getattr(begun, name) != value:
                was = f"{options_of(BuildOptions)[name].label.lower()} {getattr(begun, name)}"
                raise UserError(f"{file.parent} was begun with {was}: keep that, or take another folder.", name)
        options = replace(begun, **wanted).checked()
    content = {"options": asdict(options), "built_for": asdict(built_for)}
    write_atomically(file, (json.dumps(content, indent=2) + "\n").encode())
    return options
