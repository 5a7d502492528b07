"""The main job: one photo becomes a LiDB.

face = choose_face(photo.faces)
lidb = first_weights(start, face)
lidb = finetune(model, face, lidb)
save(lidb)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from .. import __version__
from ..errors import UserError
from ..files import check_free, checked_name
from ..hosts.protocol import Host
from ..hypernet.config import DEFAULT_TRIGGER
from ..hypernet.hypernetwork import Hypernetwork
from ..images.face import FRAMINGS, HEAD, Face, choose_face, crop_face
from ..images.photo import Photo
from ..images.sheet import jpeg
from ..lidb import file
from ..lidb.weights import LiDB
from .batch import Subject, prepare_subject
from .finetune import Finetuned, FinetuneOptions, Identity, Progress, finetune
from .starts import Start, choose_start, first_weights

THUMBNAIL_SIZE = 128
Stage = Literal["face", "predict", "finetune", "saving"]


@dataclass(frozen=True)
class Request:
    """What the user asks for beside the photo. `start` None takes the hypernetwork where there is one.

    `face` counts from the largest face of the photo; `size` is the side of the crop, None for the checkpoint's own.
    """

    name: str
    start: Start | None = None
    options: FinetuneOptions = FinetuneOptions()
    seed: int = 0
    size: int | None = None
    face: int = 1
    thumbnail: bool = True
    predict_only: bool = False


@dataclass(frozen=True)
class Personalized:
    """`first` is the LiDB at the start of the finetune, `lidb` the one after it; `faces` were found in the photo. `lr`
    is the learning rate that the finetune began with."""

    face: Face
    faces: int
    crop: np.ndarray
    start: Start
    first: LiDB
    lidb: LiDB
    steps: int
    lr: float
    info: file.Info


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Callbacks:
    """What is told as the job goes on: each stage before it begins, the aligned face (RGB uint8 [S, S, 3]), the start
    with the trigger that the person is learned as, each iteration. Whatever a callback raises ends the job.
    `should_stop` is asked before each iteration."""

    on_stage: Callable[[Stage], object] = _ignore
    on_face: Callable[[np.ndarray], object] = _ignore
    on_start: Callable[[Start, str], object] = _ignore
    on_step: Callable[[Progress], None] = _ignore
    should_stop: Callable[[], bool] = lambda: False


def personalize(
    photo: Photo,
    request: Request,
    host: Host,
    hypernetwork: Hypernetwork | None = None,
    callbacks: Callbacks = Callbacks(),
    begun: Personalized | None = None,
) -> Personalized:
    """Learn a face of `photo` on the model that `host` holds.

    `begun` is what an interrupted job had learned, to be gone on with; `photo` is not looked at then. The model is
    given back as it was, whatever happens. Raises UserError with a sentence for the user.
    """
    if begun is not None:
        return _continue(begun, request, host, hypernetwork, callbacks)
    name = checked_name(request.name)
    start = choose_start(request.start, hypernetwork)
    if request.predict_only and start != "hypernetwork":
        raise UserError("Only a hypernetwork can predict without training: train, or start from one.", "predict_only")
    callbacks.on_stage("face")
    face = choose_face(photo.faces, request.face)
    framing = FRAMINGS[hypernetwork.config.framing] if hypernetwork is not None else HEAD
    crop = crop_face(photo.pixels, face, request.size or host.default_size, framing)
    callbacks.on_face(crop)
    callbacks.on_stage("predict")
    generator = torch.Generator().manual_seed(request.seed)
    with host.frozen():
        subject = _subject(crop, host, hypernetwork)
        callbacks.on_start(start, subject.trigger)
        rank, text = request.options.rank, request.options.text
        first = first_weights(start, host, subject, hypernetwork, rank, generator, text)
        if request.predict_only:
            done = Finetuned(first, 0, 0.0)
        else:
            callbacks.on_stage("finetune")
            identity = _identity(start, host, subject, hypernetwork, request.options.identity_weight)
            done = finetune(
                host, subject, first, request.options, generator, callbacks.on_step, callbacks.should_stop, identity
            )
    info = file.Info(
        name=name,
        trigger=subject.trigger,
        model_family=host.family,
        checkpoint=host.checkpoint_name,
        checkpoint_hash=host.checkpoint_hash,
        hypernetwork=hypernetwork.file_hash if hypernetwork is not None and start == "hypernetwork" else "",
        start=start,
        steps=done.steps,
        seed=request.seed,
        made_with=f"hyperdreambooth_ext {__version__}",
        thumbnail=jpeg(crop_face(photo.pixels, face, THUMBNAIL_SIZE), quality=80) if request.thumbnail else b"",
    )
    return Personalized(face, len(photo.faces), crop, start, first, done.lidb, done.steps, done.lr, info)


def _continue(
    begun: Personalized, request: Request, host: Host, hypernetwork: Hypernetwork | None, callbacks: Callbacks
) -> Personalized:
    """The rest of the finetune. Raises UserError when another checkpoint is loaded by now."""
    if host.checkpoint_hash != begun.info.checkpoint_hash:
        raise UserError(f"It was begun with the checkpoint {begun.info.checkpoint}: load that, then continue.")
    generator = torch.Generator().manual_seed(request.seed + begun.steps)
    options = replace(request.options, lr=begun.lr)
    with host.frozen():
        subject = _subject(begun.crop, host, hypernetwork)
        callbacks.on_start(begun.start, subject.trigger)
        callbacks.on_stage("finetune")
        identity = _identity(begun.start, host, subject, hypernetwork, request.options.identity_weight)
        done = finetune(
            host, subject, begun.lidb, options, generator, callbacks.on_step, callbacks.should_stop, identity,
            begun.steps,
        )  # fmt: skip
    return replace(begun, lidb=done.lidb, steps=done.steps, info=replace(begun.info, steps=done.steps))


def face_prompt(trigger: str) -> str:
    """What shows the person, and nothing else."""
    return f"a {trigger} face"


def save(
    personalized: Personalized, folder: Path, overwrite: bool = False, callbacks: Callbacks = Callbacks()
) -> Path:  # fmt: skip
    """Write FOLDER/NAME.safetensors and return its path. Raises FileError rather than replace a file unasked."""
    callbacks.on_stage("saving")
    path = destination(folder, personalized.info.name, overwrite)
    file.save(path, personalized.lidb, personalized.info, overwrite)
    return path


def destination(folder: Path, name: str, overwrite: bool) -> Path:
    """Where a LiDB of this name goes. Raises FileError when the name is taken and `overwrite` is false."""
    path = file.path_of(folder, name)
    check_free(path, overwrite)
    return path


def _subject(crop: np.ndarray, host: Host, hypernetwork: Hypernetwork | None) -> Subject:
    """The face as the hypernetwork's faces were learned, or under the default trigger."""
    if hypernetwork is None:
        return prepare_subject(crop, host, f"a {DEFAULT_TRIGGER} face")
    learned = hypernetwork.config
    return prepare_subject(crop, host, learned.prompt, learned.trigger, learned.through_autoencoder)


def _identity(
    start: Start, host: Host, subject: Subject, hypernetwork: Hypernetwork | None, weight: float | None
) -> Identity | None:
    """Who the finetune's identity loss asks for; by default where the start's hypernetwork can tell."""
    if weight is None:
        weight = start == "hypernetwork" and hypernetwork is not None and hypernetwork.identity_net is not None
    return Identity.of(host, hypernetwork, subject.image) if weight else None
