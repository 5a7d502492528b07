"""Many picture files, brought into one frame and judged once: what was seen is kept in blocks beside them."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hyperdreambooth_ext.errors import PhotoError
from hyperdreambooth_ext.files import write_atomically
from hyperdreambooth_ext.images.face import crop_face, find_face
from hyperdreambooth_ext.images.photo import load_photo

from .judges import VERSION, Judges, Verdict
from .nearest import Album

FRAMES = ("square", "crop")
_BLOCK = 50


@dataclass(frozen=True)
class Frame:
    """How a file becomes what is judged: its middle `square`, or the face cut out as the product cuts it (`crop`)."""

    kind: str
    size: int

    def read(self, file: Path) -> np.ndarray:
        """RGB uint8 [size, size, 3]. Raises PhotoError for no picture, and where a crop finds no face."""
        photo = load_photo(file)
        if self.kind == "crop":
            return crop_face(photo, find_face(photo), self.size)
        side = min(photo.shape[:2])
        top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
        return _scaled(photo[top : top + side, left : left + side], self.size)


@dataclass(frozen=True)
class Judged:
    """Pictures that could be read: their files, what is seen in each, and Inception's features [n, 2048]."""

    files: list[Path]
    verdicts: list[Verdict]
    inception: np.ndarray


class Desk:
    """Where files are judged; `folder` keeps what was said, by the files' paths, the frame and the judges' version."""

    def __init__(self, folder: Path, judges: Judges) -> None:
        self._folder, self._judges = folder, judges

    def judged(self, files: Sequence[Path], frame: Frame) -> Judged:
        """What all judges say."""
        done = list(self._blocks("judged", files, frame, self._judge))
        verdicts = [Verdict.from_json(stored) for block in done for stored in json.loads(str(block["verdicts"]))]
        names = [Path(name) for block in done for name in block["files"]]
        return Judged(names, verdicts, np.concatenate([block["inception"] for block in done]))

    def album(self, files: Sequence[Path], frame: Frame) -> tuple[list[Path], Album]:
        """The files that could be read, to look for copies in."""
        done = list(self._blocks("album", files, frame, self._remember))
        albums = [Album(block["features"], block["thumbnails"]) for block in done]
        return [Path(name) for block in done for name in block["files"]], Album.together(albums)

    def _judge(self, pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
        verdicts = [self._judges.verdict(picture).as_json() for picture in pictures]
        return {"verdicts": np.array(json.dumps(verdicts)), "inception": self._judges.inception.features(pictures)}

    def _remember(self, photos: list[np.ndarray]) -> dict[str, np.ndarray]:
        album = Album.of(photos, self._judges.recognizer)
        return {"features": album.features, "thumbnails": album.thumbnails}

    def _blocks(
        self, kind: str, files: Sequence[Path], frame: Frame, look: Callable[[list[np.ndarray]], dict[str, np.ndarray]]
    ) -> Iterator[dict[str, np.ndarray]]:
        for first in range(0, len(files), _BLOCK):
            block = files[first : first + _BLOCK]
            names = [str(file.resolve()) for file in block]
            digest = hashlib.sha256(json.dumps([VERSION, frame.kind, frame.size, names]).encode()).hexdigest()[:16]
            kept = self._folder / f"{kind}-{digest}.npz"
            if not kept.exists():
                readable = list(_readable(block, frame))
                if not readable:
                    continue
                said = look([picture for _, picture in readable])
                buffer = io.BytesIO()
                np.savez(buffer, files=np.array([str(file) for file, _ in readable]), **said)
                write_atomically(kept, buffer.getvalue())
                print(f"{kind}: {first + len(block)} of {len(files)}", flush=True)
            with np.load(kept) as stored:
                yield dict(stored)


def _readable(files: Sequence[Path], frame: Frame) -> Iterator[tuple[Path, np.ndarray]]:
    for file in files:
        try:
            yield file, frame.read(file)
        except PhotoError as error:
            print(f"left out {file.name}: {error}", flush=True)


def _scaled(picture: np.ndarray, size: int) -> np.ndarray:
    smaller = picture.shape[0] > size
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
