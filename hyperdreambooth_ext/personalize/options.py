"""Everything that can be set about a personalization, said once: the command line, the tab, the API and
docs/options.md are made from these fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import UserError
from ..lidb.file import MAX_RANK
from .finetune import FinetuneOptions
from .personalize import Request
from .starts import Start

Interface = Literal["tab", "api", "cli"]
EVERYWHERE: tuple[Interface, ...] = get_args(Interface)
Quality = Literal["fast", "balanced", "best"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
PRESETS: dict[Quality, FinetuneOptions] = {
    "fast": FinetuneOptions(steps=30),
    "balanced": FinetuneOptions(),
    "best": FinetuneOptions(steps=240, rank=4, lr_factor=0.33),
}


@dataclass(frozen=True)
class Option:
    """One option as the interfaces show it. `type` is bool, int, float or str; where `default` is None, `unset` says
    what is taken instead; `recommended` says which values do well."""

    name: str
    type: type
    default: Any
    help: str
    low: float | None
    high: float | None
    multiple: int | None
    choices: tuple[str, ...]
    label: str
    unset: str
    shown: tuple[Interface, ...]
    recommended: str

    def check(self, value: Any) -> None:
        """Raises UserError for a value that cannot be."""
        if value is None and self.default is None:
            return
        if self.choices and value not in self.choices:
            raise UserError(f"{self.label}: choose {', '.join(self.choices)}, not {value!r}.", self.name)
        if self.low is not None and not value >= self.low:
            raise UserError(f"{self.label}: at least {self.low:,.10g}.", self.name)
        if self.high is not None and value > self.high:
            raise UserError(f"{self.label}: at most {self.high:,.10g}.", self.name)
        if self.multiple and value % self.multiple:
            raise UserError(f"{self.label}: choose a multiple of {self.multiple}, not {value}.", self.name)


def option(
    default: Any, help: str, low: float | None = None, high: float | None = None, *, multiple: int | None = None,
    label: str = "", unset: str = "", shown: tuple[Interface, ...] = EVERYWHERE, recommended: str = "",
) -> Any:  # fmt: skip
    """A dataclass's field that is an `Option`. Its choices are those of its Literal, its label is made of its name."""
    facts = {"low": low, "high": high, "multiple": multiple, "unset": unset, "shown": shown, "recommended": recommended}
    return field(default=default, metadata={"help": help, "label": label, **facts})


def options_of(kind: type, interface: Interface | None = None) -> Mapping[str, Option]:
    """The options of a dataclass by name: all, or those that an interface shows."""
    hints = get_type_hints(kind)
    found = [_option(f.name, hints[f.name], f.default, **f.metadata) for f in fields(kind) if f.metadata]
    return {one.name: one for one in found if interface is None or interface in one.shown}


def check(options: Any) -> None:
    """Raises UserError for the first value that cannot be."""
    for name, one in options_of(type(options)).items():
        one.check(getattr(options, name))


def _option(name: str, hint: Any, default: Any, label: str, **facts: Any) -> Option:
    if get_origin(hint) in (Union, UnionType):  # X | None
        hint = get_args(hint)[0]
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    label = label or name.replace("_", " ").capitalize()
    return Option(name, str if choices else hint, default, choices=choices, label=label, **facts)


@dataclass(frozen=True, kw_only=True)
class PersonalizeOptions:
    """What is asked for beside the photo and the name. None takes what the quality or the checkpoint says."""

    quality: Quality = option(
        "balanced", "How long the finetune takes: 30, 80 or 240 iterations.",
        recommended="balanced; fast for a first look",
    )  # fmt: skip
    steps: int | None = option(
        None, "Iterations of the finetune.", 1, 2000, label="Iterations", unset="the quality's",
        recommended="30 to 240",
    )  # fmt: skip
    rank: int | None = option(
        None, "Rank of the weight changes during the finetune and in the file.", 1, MAX_RANK, unset="the quality's",
        recommended="2, or 4 with many iterations",
    )  # fmt: skip
    lr: float | None = option(
        None, "Learning rate of the finetune.", 0.00001, 1, label="Learning rate",
        unset="found by a line search",
    )  # fmt: skip
    size: int | None = option(
        None, "Side of the face's crop and of the pictures.", 64, 2048, multiple=64, label="Size in pixels",
        unset="the checkpoint's", recommended="the checkpoint's; less where memory is short",
    )  # fmt: skip
    seed: int = option(0, "Of training and pictures.", 0, 2**32 - 1)
    start: Start | None = option(
        None, "By default the hypernetwork that fits the checkpoint, else the gradient.", unset="Automatic"
    )
    hypernetwork: str = option(
        "", "A hypernetwork's file; by default one made for this checkpoint, of several the newest.",
        unset="Automatic", shown=("tab", "api"),
    )  # fmt: skip
    preview_every: int = option(
        20, "Iterations between previews; 0: none.", 0, 2000, shown=("tab", "api"),
        recommended="20; 0 saves a little time",
    )  # fmt: skip
    pictures: int = option(
        2, "Seeds of the pictures before and after.", 1, 4, label="Pictures", shown=("tab", "api"),
        recommended="2; 1 saves time",
    )  # fmt: skip
    picture_steps: int = option(25, "Sampling steps of the pictures before and after.", 1, 200, shown=("api",))
    face: int = option(1, "Which face, counted from the largest.", 1, 100)
    overwrite: bool = option(False, "Replace a LiDB of the same name.", label="Replace a LiDB of the same name")
    thumbnail: bool = option(
        True, "Cards show it. Without it the file holds no picture.",
        label="Keep a small picture of the face in the file",
    )  # fmt: skip
    text: bool = option(
        False,
        "Train the text encoder's layers too, SDXL's two except in AUTOMATIC1111: longer, and larger files.",
        label="Train the text encoder too",
    )
    low_memory: bool = option(False, "Take less memory and more time, for small graphics cards.", shown=("cli",))
    predict_only: bool = option(False, "Keep the hypernetwork's prediction, train nothing.", shown=("cli",))

    def finetune(self) -> FinetuneOptions:
        """The quality's options with what was changed."""
        changed = {name: getattr(self, name) for name in ("steps", "rank", "lr") if getattr(self, name) is not None}
        micro_batch_size = 1 if self.low_memory else None
        return replace(PRESETS[self.quality], text=self.text, micro_batch_size=micro_batch_size, **changed)

    def request(self, name: str) -> Request:
        """The options as the main job takes them."""
        same = ("start", "seed", "size", "face", "thumbnail", "predict_only")
        return Request(name=name, options=self.finetune(), **{one: getattr(self, one) for one in same})
