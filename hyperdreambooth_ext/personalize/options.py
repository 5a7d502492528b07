"""Everything that can be set about a personalization, said once: the command line, the tab, the API and
docs/options.md are made from these fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from ..errors import UserError
from ..lidb.file import MAX_RANK
from .finetune import FinetuneOptions
from .personalize import Request
from .starts import STARTS, Start

Interface = Literal["tab", "api", "cli"]
EVERYWHERE: tuple[Interface, ...] = get_args(Interface)
Quality = Literal["fast", "balanced", "best"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
PRESETS: dict[Quality, FinetuneOptions] = {
    "fast": FinetuneOptions(steps=30),
    "balanced": FinetuneOptions(),
    "best": FinetuneOptions(steps=240, rank=4, lr=0.02),
}


@dataclass(frozen=True)
class Option:
    """One option as the interfaces show it. `type` is bool, int, float or str; where `default` is None, `unset` says
    what is taken instead. `recommended` says when to choose another value."""

    name: str
    type: type
    default: Any
    label: str
    help: str
    low: float | None = None
    high: float | None = None
    multiple: int | None = None
    choices: tuple[str, ...] = ()
    unset: str = ""
    shown: tuple[Interface, ...] = EVERYWHERE
    recommended: str = ""

    def check(self, value: Any) -> None:
        """Raises UserError for a value that cannot be."""
        if value is None and self.default is None:
            return
        if self.choices and value not in self.choices:
            raise UserError(f"{self.label}: choose {', '.join(self.choices)}, not {value!r}.", self.name)
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise UserError(f"{self.label}: choose from {self.low:,g} to {self.high:,g}, not {value}.", self.name)
        if self.multiple and value % self.multiple:
            raise UserError(f"{self.label}: choose a multiple of {self.multiple}, not {value}.", self.name)


def option(default: Any, label: str, help: str, **facts: Any) -> Any:
    """A dataclass's field that is an `Option`; `facts` are its other fields."""
    return field(default=default, metadata={"label": label, "help": help, **facts})


def options_of(kind: type, interface: Interface | None = None) -> Mapping[str, Option]:
    """The options of a dataclass by name: all, or those that an interface shows."""
    hints = get_type_hints(kind)
    found = [Option(f.name, _type(hints[f.name]), f.default, **f.metadata) for f in fields(kind) if f.metadata]
    return {one.name: one for one in found if interface is None or interface in one.shown}


def check(options: Any) -> None:
    """Raises UserError for the first value that cannot be."""
    for name, one in options_of(type(options)).items():
        one.check(getattr(options, name))


def _type(hint: Any) -> type:
    """bool, int, float or str of "int | None", Literal["fast", "best"] and the like."""
    first = next((arg for arg in get_args(hint) if arg is not type(None)), hint)
    return first if isinstance(first, type) else str if isinstance(first, str) else _type(first)


@dataclass(frozen=True, kw_only=True)
class PersonalizeOptions:
    """What is asked for beside the photo and the name. None takes what the quality or the checkpoint says."""

    quality: Quality = option(
        "balanced", "Quality", "How long the finetune takes: 30, 80 or 240 iterations.", choices=QUALITIES,
        recommended="balanced; fast for a first look",
    )  # fmt: skip
    steps: int | None = option(
        None, "Iterations", "Iterations of the finetune.", low=1, high=2000, unset="the quality's",
        recommended="30 to 240",
    )  # fmt: skip
    rank: int | None = option(
        None, "Rank", "Rank of the weight changes during the finetune and in the file.", low=1, high=MAX_RANK,
        unset="the quality's", recommended="2, or 4 with many iterations",
    )  # fmt: skip
    lr: float | None = option(
        None, "Learning rate", "Learning rate of the finetune.", low=0.00001, high=1, unset="the quality's",
        recommended="0.03, or 0.02 with many iterations",
    )  # fmt: skip
    size: int | None = option(
        None, "Size in pixels", "Side of the face's crop and of the pictures.", low=64, high=2048, multiple=64,
        unset="the checkpoint's", recommended="the checkpoint's; less where memory is short",
    )  # fmt: skip
    seed: int = option(0, "Seed", "Of the training and of the pictures.", low=0, high=2**32 - 1)
    start: Start | None = option(
        None, "Start", "By default the hypernetwork that fits the checkpoint, else the gradient.",
        choices=STARTS, unset="Automatic", recommended="Automatic",
    )  # fmt: skip
    hypernetwork: str = option(
        "", "Hypernetwork", "A hypernetwork's file; by default one made for this checkpoint, of several the newest.",
        shown=("tab", "api"), unset="Automatic", recommended="Automatic",
    )  # fmt: skip
    preview_every: int = option(
        20, "Preview every", "Iterations between previews; 0: none.", low=0, high=2000, shown=("tab", "api"),
        recommended="20; 0 saves a little time",
    )  # fmt: skip
    picture_steps: int = option(
        25, "Sampling steps", "Of the pictures before and after.", low=1, high=200, shown=("api",),
    )  # fmt: skip
    face: int = option(1, "Face", "Which face, counted from the largest.", low=1, high=100)
    overwrite: bool = option(False, "Replace a LiDB of the same name", "Replace a LiDB of the same name.")
    thumbnail: bool = option(
        True, "Keep a small picture of the face in the file", "Cards show it. Without it the file holds no picture.",
    )  # fmt: skip
    text: bool = option(
        False, "Train the text encoder too", "Train the text encoder's layers too, which takes longer.",
        recommended="off",
    )  # fmt: skip
    low_memory: bool = option(
        False, "Low memory", "Take less memory and more time, for small graphics cards.", shown=("cli",),
    )  # fmt: skip
    predict_only: bool = option(
        False, "Predict only", "Keep the hypernetwork's prediction, train nothing.", shown=("cli",),
    )  # fmt: skip

    def finetune(self) -> FinetuneOptions:
        """The quality's options with what was changed."""
        changed = {name: getattr(self, name) for name in ("steps", "rank", "lr") if getattr(self, name) is not None}
        micro_batch_size = 1 if self.low_memory else None
        return replace(PRESETS[self.quality], text=self.text, micro_batch_size=micro_batch_size, **changed)

    def request(self, name: str) -> Request:
        """The options as the main job takes them."""
        same = ("start", "seed", "size", "face", "thumbnail", "predict_only")
        return Request(name=name, options=self.finetune(), **{one: getattr(self, one) for one in same})
