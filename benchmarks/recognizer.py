"""An independent face recognizer: dlib's ResNet, which no training here has ever seen.

Packages: dlib-bin and face_recognition_models (the extra `benchmarks`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

import numpy as np

from hyperdreambooth_ext.images.face import Face, find_faces

from .face_quality import face_chip

# Where dlib's own detector puts its box in our chips, as shares of the side (left, top, right, bottom): the mean over
# 120 photos, in all of which it finds one. YuNet finds faces that dlib's detector does not, such as sketches.
BOX = (0.238, 0.328, 0.753, 0.844)
CHIP = 256


class Recognizer:
    """Features of faces; the distance of two photos of one person is below about 0.6."""

    @cached_property
    def _dlib(self):
        import dlib

        models = resources.files("face_recognition_models") / "models"
        landmarks = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        return (
            dlib,
            landmarks,
            dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat")),
        )

    def features(self, picture: np.ndarray) -> np.ndarray | None:
        """RGB uint8 [H, W, 3] -> float64 [128] of its largest face; None where the detector finds no face."""
        faces = find_faces(picture)
        return self.of_face(picture, faces[0]) if faces else None

    def of_face(self, picture: np.ndarray, face: Face) -> np.ndarray:
        """float64 [128] of one face, cut out where the detector found it: a box at a fixed place would read somebody
        into any picture, fragments too."""
        dlib, landmarks, network = self._dlib
        chip = face_chip(picture, face, CHIP)
        shape = landmarks(chip, dlib.rectangle(*(round(share * CHIP) for share in BOX)))
        return np.array(network.compute_face_descriptor(chip, shape))


@dataclass(frozen=True)
class Match:
    """Whom a picture shows: whether the nearest photo is the right person's, and how far that person and others are."""

    rank1: bool
    distance: float
    to_others: float


class Gallery:
    """Photos of everybody, by person: features [photos, 128] of each.

    `strangers` is the mean distance between photos of different people.
    """

    def __init__(self, people: Sequence[np.ndarray]) -> None:
        self.people = list(people)
        between = [
            np.mean([distances(photo, self.people[:i] + self.people[i + 1 :]) for photo in photos])
            for i, photos in enumerate(self.people)
        ]
        self.strangers = float(np.mean(between))

    def match(self, features: np.ndarray | None, person: int) -> Match:
        """A picture of `person` by its features. Without a face (None) it is a miss, as far away as strangers are."""
        if features is None:
            return Match(False, self.strangers, self.strangers)
        to_each = distances(features, self.people)
        others = [to.mean() for i, to in enumerate(to_each) if i != person]
        nearest = int(np.argmin([to.min() for to in to_each]))
        return Match(nearest == person, float(to_each[person].mean()), float(np.mean(others)))


def features_of_all(photos: Sequence[np.ndarray], recognizer: Recognizer) -> np.ndarray:
    """float64 [n, 128] of the photos in which a face is found. Raises ValueError when there is none."""
    seen = [recognizer.features(photo) for photo in photos]
    return np.stack([features for features in seen if features is not None])


def distances(picture: np.ndarray, gallery: list[np.ndarray]) -> list[np.ndarray]:
    """How far `picture`'s features [128] are from each photo of each person, `gallery` of [photos, 128]."""
    return [np.linalg.norm(photos - picture, axis=-1) for photos in gallery]
