"""The main job: one photo becomes a LiDB.

face = find_face(photo)
weights = hypernetwork(face)
weights = finetune(model, face, weights)
save(weights)
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .. import __version__
from ..errors import FileError, UserError
from ..files import checked_name
from ..hosts.protocol import Host
from ..hypernet.file import check_fits
from ..hypernet.hypernetwork import Hypernetwork
from ..images.face import Face, choose_face, crop_face, find_faces
from ..lidb import file
from ..lidb.basis import Basis
from ..lidb.layers import Architecture
from ..lidb.weights import LiDB
from .finetune import Finetuned, FinetuneOptions, Progress, finetune
from .likeness_term import LikenessTerm
from .starts import Start, gradient_start, hypernetwork_start, zero_start
from .subject import DEFAULT_TRIGGER, Subject, prepare_subject

THUMBNAIL_SIZE = 128


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
    """`first` is the LiDB at the start of the finetune, `lidb` the one after it; `faces` were found in the photo."""

    face: Face
    faces: int
    crop: np.ndarray
    start: Start
    first: LiDB
    lidb: LiDB
    steps: int
    info: file.Info


def personalize(
    photo: np.ndarray,
    request: Request,
    host: Host,
    hypernetwork: Hypernetwork | None = None,
    hypernetwork_name: str = "",
    on_step: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Personalized:
    """Learn a face of `photo` (RGB uint8 [H, W, 3]) on the model that `host` holds.

    The model is given back as it was, whatever happens. Raises UserError with a sentence for the user.
    """
    name = checked_name(request.name)
    faces = find_faces(photo)
    face = choose_face(faces, request.face)
    start = _chosen_start(request, hypernetwork)
    prompt = hypernetwork.config.prompt if hypernetwork is not None else f"a {DEFAULT_TRIGGER} face"
    trigger = hypernetwork.config.trigger if hypernetwork is not None else DEFAULT_TRIGGER
    drawn = hypernetwork is not None and hypernetwork.config.through_autoencoder
    generator = torch.Generator().manual_seed(request.seed)
    size = request.size or host.default_size
    with host.frozen():
        subject = prepare_subject(photo, face, host, prompt, size, trigger=trigger, through_autoencoder=drawn)
        first = _first_weights(start, host, subject, hypernetwork, request.options.rank, generator)
        if request.predict_only:
            done = Finetuned(first, 0)
        else:
            likeness = _likeness(start, host, subject, hypernetwork, request.options.identity_weight)
            done = finetune(host, subject, first, request.options, generator, on_step, should_stop, likeness)
    info = file.Info(
        name=name,
        trigger=trigger,
        model_family=host.family,
        checkpoint=host.checkpoint_name,
        checkpoint_hash=host.checkpoint_hash,
        hypernetwork=hypernetwork_name if start == "hypernetwork" else "",
        start=start,
        steps=done.steps,
        seed=request.seed,
        made_with=f"hyperdreambooth_ext {__version__}",
        thumbnail=_thumbnail(photo, face) if request.thumbnail else b"",
    )
    return Personalized(face, len(faces), crop_face(photo, face, size), start, first, done.lidb, done.steps, info)


def save(personalized: Personalized, folder: Path, overwrite: bool = False) -> Path:
    """Write FOLDER/NAME.safetensors and return its path. Raises FileError rather than replace a file unasked."""
    path = destination(folder, personalized.info.name, overwrite)
    file.save(path, personalized.lidb, personalized.info, overwrite)
    return path


def destination(folder: Path, name: str, overwrite: bool) -> Path:
    """Where a LiDB of this name goes. Raises FileError when the name is taken and `overwrite` is false."""
    path = Path(folder) / f"{checked_name(name)}.safetensors"
    if os.path.lexists(path) and not overwrite:
        raise FileError(f"{path} exists already: take another name, or allow replacing it.", "overwrite")
    return path


def _chosen_start(request: Request, hypernetwork: Hypernetwork | None) -> Start:
    start = request.start or ("gradient" if hypernetwork is None else "hypernetwork")
    if request.predict_only and start != "hypernetwork":
        raise UserError("Only a hypernetwork can predict without training: train, or start from one.", "predict_only")
    return start


def _first_weights(
    start: Start,
    host: Host,
    subject: Subject,
    hypernetwork: Hypernetwork | None,
    rank: int,
    generator: torch.Generator,
) -> LiDB:
    architecture, basis = Architecture.of(host.linears()), Basis()
    if start == "gradient":
        return gradient_start(host, subject, architecture, basis, rank, generator)
    if start == "zero":
        return zero_start(architecture, basis, rank, generator)
    if hypernetwork is None:
        raise UserError("No hypernetwork fits this checkpoint: choose the gradient start, which needs none.", "start")
    check_fits(hypernetwork, architecture)
    return hypernetwork_start(hypernetwork, subject, rank, generator)


def _likeness(
    start: Start, host: Host, subject: Subject, hypernetwork: Hypernetwork | None, weight: float | None
) -> LikenessTerm | None:
    """What the finetune asks of the hypernetwork's recognizers; by default where that gave the start and holds some."""
    if weight is None:
        if start != "hypernetwork" or hypernetwork is None or hypernetwork.identity_net is None:
            return None
        return LikenessTerm.of(host, hypernetwork, subject.image)
    return LikenessTerm.of(host, hypernetwork, subject.image, weight) if weight else None


def _thumbnail(photo: np.ndarray, face: Face) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(crop_face(photo, face, THUMBNAIL_SIZE)).save(buffer, "JPEG", quality=80, optimize=True)
    return buffer.getvalue()
