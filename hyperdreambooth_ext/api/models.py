"""The API's requests and answers; runs on pydantic 1 (AUTOMATIC1111) and 2 (Forge)."""

import base64
import binascii
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, create_model

from ..errors import PhotoError
from ..images.photo import check_photo_bytes
from ..jobs.job import JobStatus, Result
from ..jobs.library import Entry
from ..personalize.options import Option, PersonalizeOptions, options_of
from ..texts import MAX_TEXT

Model = TypeVar("Model", bound=BaseModel)


class _Photo(BaseModel):
    """One photo to learn; what is left out is taken from the quality or the checkpoint."""

    photo: str = Field(description="JPEG, PNG or WebP in base64, at most 20 MB; a data: URL is understood too")
    name: str = Field(max_length=200, description="the name in <lidb:NAME:1>")

    def options(self) -> dict[str, Any]:
        """The options by name."""
        return {name: getattr(self, name) for name in _OPTIONS}


def _field(option: Option) -> tuple[Any, Any]:
    """An option as pydantic knows it: its type and its range."""
    kind: Any = Literal[option.choices] if option.choices else option.type
    limits: dict[str, Any] = {"ge": option.low, "le": option.high, "multiple_of": option.multiple}
    if kind is str:
        limits["max_length"] = MAX_TEXT
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    return kind | None if option.default is None else kind, Field(option.default, description=option.help, **limits)


_OPTIONS = options_of(PersonalizeOptions, "api")
PersonalizeRequest = create_model(
    "PersonalizeRequest", __base__=_Photo, **{name: _field(option) for name, option in _OPTIONS.items()}
)  # type: ignore[call-overload]


class InterruptRequest(BaseModel):
    """Whether to save what was learned."""

    keep: bool


class ExportRequest(BaseModel):
    """Which LiDB to write as a LoRA."""

    name: str = Field(max_length=200)
    overwrite: bool = False


class Submitted(BaseModel):
    """The job's id, for /jobs/{id}."""

    id: str


class PicturePair(BaseModel):
    """Two pictures of one seed: without the LiDB and with it."""

    seed: int
    before: str
    after: str


class JobResult(BaseModel):
    """A finished job. `before` and `after` are the first pair's. `identity` and `identity_before` are the bundled
    recognizer's cosines, null without one; they were not shown to agree with what people see."""

    file: str
    bytes: int
    seconds: float
    steps: int
    start: str
    start_reason: str
    name: str
    trigger: str
    tag: str
    prompt: str
    seed: int
    photo: str
    before: str
    after: str
    pictures: list[PicturePair]
    size: int
    cfg: float
    identity: float | None
    identity_before: float | None
    identity_words: str


class Job(BaseModel):
    """A job's state. `stage`: queued, face, predict, finetune, saving, pictures, then done, failed or cancelled."""

    id: str
    name: str
    stage: str
    step: int
    steps: int
    progress: float
    waiting: int
    eta_seconds: float | None
    message: str
    start_reason: str
    preview: str
    can_keep: bool
    can_continue: bool
    result: JobResult | None


class ListedLidb(BaseModel):
    """A LiDB on disk."""

    name: str
    file: str
    bytes: int
    trigger: str
    checkpoint: str
    checkpoint_hash: str
    steps: int
    thumbnail: str


class Exported(BaseModel):
    """The LoRA that was written."""

    file: str
    bytes: int


class Version(BaseModel):
    """`unfit` is empty when a personalization can start."""

    version: str
    program: str
    unfit: str


def photo_bytes(text: str) -> bytes:
    """The photo out of base64. Raises PhotoError when it is none or too large."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise PhotoError("The photo is no base64: encode the file's bytes.") from None
    check_photo_bytes(len(content))
    return content


def job_model(status: JobStatus) -> Job:
    """A snapshot as it is sent."""
    return _sent(
        Job,
        status,
        progress=round(status.fraction, 4),
        eta_seconds=None if status.eta_seconds is None else round(status.eta_seconds, 1),
        result=None if status.result is None else _result_model(status.result),
    )


def listed_model(entry: Entry) -> ListedLidb:
    """A LiDB on disk as it is sent."""
    return _sent(ListedLidb, entry.info, name=entry.name, file=str(entry.path), bytes=entry.file_bytes)


def _result_model(result: Result) -> JobResult:
    pictures = [_sent(PicturePair, pair) for pair in result.pictures]
    return _sent(JobResult, result, file=str(result.path), bytes=result.file_bytes, pictures=pictures)


def _sent(kind: type[Model], source: Any, **others: Any) -> Model:
    """`kind` with what `source` calls by the same name, pictures in base64, and the `others`."""
    same = {name: getattr(source, name) for name in kind.__annotations__ if name not in others}
    pictures = {name: base64.b64encode(value).decode() for name, value in same.items() if isinstance(value, bytes)}
    return kind(**same | pictures | others)
