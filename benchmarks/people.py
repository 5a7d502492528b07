"""The people that likeness is measured on: one photo to learn from, other photos to compare with."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.images.face import choose_face, crop_face, find_faces
from hyperdreambooth_ext.images.photo import load_photo

SYNTHETIC = Path(__file__).parent / "people"
LEFT_OUT = ("P003",)  # of OpenPeople: its sheets do not show one person throughout
SMALLEST_FACE = 48  # pixels; smaller faces of OpenPeople's sheets say little about a face


@dataclass(frozen=True)
class Person:
    """`photo` RGB uint8 [H, W, 3]; `crop` its aligned face; `others` aligned faces of other photos, all [S, S, 3]."""

    name: str
    photo: np.ndarray
    crop: np.ndarray
    others: tuple[np.ndarray, ...]


def synthetic(folder: Path, count: int, size: int) -> list[Person]:
    """The first `count` people of FOLDER: NNNNN_0.jpg to learn from, NNNNN_1.jpg to compare with."""
    return [_synthetic(first, size) for first in sorted(folder.glob("*_0.jpg"))[:count]]


def synthetic_person(folder: Path, number: int, size: int) -> Person:
    """One of the people of FOLDER."""
    return _synthetic(sorted(folder.glob("*_0.jpg"))[number], size)


def face_of(photo: np.ndarray, size: int) -> np.ndarray:
    """The largest face, aligned, RGB uint8 [size, size, 3]. Raises PhotoError without one."""
    return crop_face(photo, choose_face(find_faces(photo)), size)


def _synthetic(first: Path, size: int) -> Person:
    photo, other = load_photo(first), load_photo(first.with_name(first.name.replace("_0", "_1")))
    crops = [face_of(picture, size) for picture in (photo, other)]
    return Person(first.name[:-6], photo, crops[0], (crops[1],))


def openpeople(size: int) -> list[Person]:
    """The people of the package `openpeople` (MIT, AI-generated): learned from the studio portrait, compared with the
    selfie and the faces of the emotions sheet."""
    package = find_spec("openpeople")
    if package is None or not package.submodule_search_locations:
        raise UserError("The package openpeople is missing: install it with `pip install --no-deps openpeople`.")
    people = []
    for folder in sorted((Path(package.submodule_search_locations[0]) / "data" / "curated").iterdir()):
        if folder.name in LEFT_OUT:
            continue
        photo = load_photo(folder / "assets" / "studio_portrait.jpg")
        others = []
        for name in ("amateur_selfie.jpg", "emotions_sheet.jpg"):
            picture = load_photo(folder / "assets" / name)
            faces = [face for face in find_faces(picture) if face.box[2] >= SMALLEST_FACE]
            others += [crop_face(picture, face, size) for face in faces]
        people.append(Person(folder.name, photo, face_of(photo, size), tuple(others)))
    return people
