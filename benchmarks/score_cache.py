"""Scores of many picture files, all brought into one frame: computed in blocks, each kept on disk."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from hyperdreambooth_ext.errors import PhotoError, UserError
from hyperdreambooth_ext.files import write_atomically
from hyperdreambooth_ext.images.photo import load_photo

from .judges import VERSION, Judges, Score
from .nearest import PhotoIndex
from .people import face_of

_BLOCK = 50


@dataclass(frozen=True)
class Frame:
    """What of a file is judged, at which side in pixels: the middle `square`, or the aligned `crop` of the face."""

    kind: Literal["square", "crop"]
    size: int

    def read(self, file: Path) -> np.ndarray:
        """RGB uint8 [size, size, 3]. Raises PhotoError for no picture, and where a crop finds no face."""
        photo = load_photo(file)
        if self.kind == "crop":
            return face_of(photo, self.size)
        side = min(photo.shape[:2])
        top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
        return _scaled(photo[top : top + side, left : left + side], self.size)


@dataclass(frozen=True)
class Scored:
    """Files that could be read, the score of each, and Inception's features [n, 2048]."""

    files: list[Path]
    scores: list[Score]
    inception: np.ndarray


class ScoreCache:
    """Scores in `folder`, by the files' paths and sizes, the frame and the judges' version."""

    def __init__(self, folder: Path, judges: Judges) -> None:
        self._folder, self._judges = folder, judges

    def scored(self, files: Sequence[Path], frame: Frame) -> Scored:
        """All judges' scores. Raises UserError when no file can be read."""
        blocks = self._blocks("scores", files, frame, self._score)
        scores = [Score.from_json(stored) for block in blocks for stored in json.loads(str(block["scores"]))]
        return Scored(_names(blocks), scores, np.concatenate([block["inception"] for block in blocks]))

    def index(self, files: Sequence[Path], frame: Frame) -> tuple[list[Path], PhotoIndex]:
        """The files that could be read, and an index of them to look for copies in. Raises UserError as `scored`."""
        blocks = self._blocks("index", files, frame, self._index)
        indexes = [PhotoIndex(block["features"], block["thumbnails"]) for block in blocks]
        return _names(blocks), PhotoIndex.together(indexes)

    def _score(self, pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
        scores = [self._judges.score(picture).as_json() for picture in pictures]
        return {"scores": np.array(json.dumps(scores)), "inception": self._judges.inception.features(pictures)}

    def _index(self, photos: list[np.ndarray]) -> dict[str, np.ndarray]:
        index = PhotoIndex.of(photos, self._judges.recognizer)
        return {"features": index.features, "thumbnails": index.thumbnails}

    def _blocks(
        self, kind: str, files: Sequence[Path], frame: Frame,
        compute: Callable[[list[np.ndarray]], dict[str, np.ndarray]],
    ) -> list[dict[str, np.ndarray]]:  # fmt: skip
        blocks = []
        for first in range(0, len(files), _BLOCK):
            block = files[first : first + _BLOCK]
            cached = self._folder / f"{kind}-{_digest(block, frame)}.npz"
            if not cached.exists():
                readable = list(_readable(block, frame))
                if not readable:
                    continue
                arrays = compute([picture for _, picture in readable])
                buffer = io.BytesIO()
                np.savez(buffer, files=np.array([str(file) for file, _ in readable]), **arrays)
                write_atomically(cached, buffer.getvalue())
                print(f"{kind}: {first + len(block)} of {len(files)}", flush=True)
            with np.load(cached) as stored:
                blocks.append(dict(stored))
        if not blocks:
            raise UserError(f"No file in {files[0].parent} shows a face: give a folder of photos of faces.")
        return blocks


def _names(blocks: list[dict[str, np.ndarray]]) -> list[Path]:
    return [Path(str(name)) for block in blocks for name in block["files"]]


def _digest(files: Sequence[Path], frame: Frame) -> str:
    names = [(str(file.resolve()), file.stat().st_size) for file in files]
    return hashlib.sha256(json.dumps([VERSION, frame.kind, frame.size, names]).encode()).hexdigest()[:16]


def _readable(files: Sequence[Path], frame: Frame) -> Iterator[tuple[Path, np.ndarray]]:
    for file in files:
        try:
            yield file, frame.read(file)
        except PhotoError as error:
            print(f"left out {file.name}: {error}", flush=True)


def _scaled(picture: np.ndarray, size: int) -> np.ndarray:
    smaller = picture.shape[0] > size
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
