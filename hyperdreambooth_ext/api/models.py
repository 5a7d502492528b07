"""The API's requests and answers; runs on pydantic 1 (AUTOMATIC1111) and 2 (Forge)."""

import base64
import binascii
from typing import Any, Literal

from pydantic import BaseModel, Field

from ..errors import PhotoError
from ..images.photo import MAX_PHOTO_BYTES
from ..jobs.library import Entry
from ..jobs.status import JobStatus, Result


class PersonalizeRequest(BaseModel):
    """One photo to learn; what is left out is taken from the quality or the checkpoint."""

    photo: str = Field(description="JPEG, PNG or WebP in base64, at most 20 MB; a data: URL is understood too")
    name: str = Field(max_length=200, description="the name in <lidb:NAME:1>")
    quality: Literal["fast", "balanced", "best"] = "balanced"
    start: Literal["hypernetwork", "gradient", "zero"] | None = None
    hypernetwork: str = Field("", max_length=200, description="a file's name; empty: the one that fits best")
    steps: int | None = None
    rank: int | None = None
    lr: float | None = None
    text: bool = Field(False, description="train the text encoder's layers too")
    face: int = Field(1, description="which face, counted from the largest")
    seed: int = 0
    size: int | None = None
    thumbnail: bool = Field(True, description="keep a small picture of the face in the file")
    overwrite: bool = Field(False, description="replace a LiDB of the same name")
    preview_every: int = Field(20, description="iterations between previews, 0 for none")
    picture_steps: int = Field(25, description="sampling steps of the pictures before and after")

    def task_values(self) -> dict[str, Any]:
        """Task's arguments beside the photo."""
        return {name: getattr(self, name) for name in type(self).__annotations__ if name != "photo"}


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


class JobResult(BaseModel):
    """A finished job. `identity` is a cosine, null without a score."""

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
    if len(content) > MAX_PHOTO_BYTES:
        raise PhotoError(f"The photo is larger than {MAX_PHOTO_BYTES // 1_000_000} MB: save it smaller, as a JPEG.")
    return content


def job_model(status: JobStatus) -> Job:
    """A snapshot as it is sent."""
    return Job(
        id=status.id,
        name=status.name,
        stage=status.stage,
        step=status.step,
        steps=status.steps,
        progress=round(status.fraction, 4),
        waiting=status.waiting,
        eta_seconds=None if status.eta_seconds is None else round(status.eta_seconds, 1),
        message=status.message,
        start_reason=status.start_reason,
        preview=_text(status.preview),
        can_keep=status.can_keep,
        result=None if status.result is None else _result_model(status.result),
    )


def listed_model(entry: Entry) -> ListedLidb:
    """A LiDB on disk as it is sent."""
    info = entry.info
    return ListedLidb(
        name=entry.name,
        file=str(entry.path),
        bytes=entry.file_bytes,
        trigger=info.trigger,
        checkpoint=info.checkpoint,
        checkpoint_hash=info.checkpoint_hash,
        steps=info.steps,
        thumbnail=_text(info.thumbnail),
    )


def _result_model(result: Result) -> JobResult:
    same = ("seconds", "steps", "start", "start_reason", "name", "trigger", "tag", "prompt", "seed")
    return JobResult(
        file=str(result.path),
        bytes=result.file_bytes,
        photo=_text(result.photo),
        before=_text(result.before),
        after=_text(result.after),
        identity=result.identity,
        identity_before=result.identity_before,
        identity_words=result.identity_words,
        **{name: getattr(result, name) for name in same},
    )


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
