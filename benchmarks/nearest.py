"""The photos that a picture may have been copied from: the nearest of many, by who is on them and by pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .recognizer import Recognizer

THUMBNAIL = 32


@dataclass(frozen=True)
class PhotoIndex:
    """Photos: dlib's features float64 [n, 128], NaN where no face is found, and thumbnails float32 [n, 3072]."""

    features: np.ndarray
    thumbnails: np.ndarray

    @classmethod
    def of(cls, photos: Sequence[np.ndarray], recognizer: Recognizer) -> "PhotoIndex":
        """Of RGB uint8 photos [H, W, 3], framed as the pictures are that will be compared with them."""
        found = [recognizer.features(photo) for photo in photos]
        features = np.stack([np.full(128, np.nan) if one is None else one for one in found])
        return cls(features, np.stack([_thumbnail(photo) for photo in photos]))

    @classmethod
    def together(cls, indexes: Sequence["PhotoIndex"]) -> "PhotoIndex":
        """One index of all photos, in this order."""
        features = np.concatenate([index.features for index in indexes])
        return cls(features, np.concatenate([index.thumbnails for index in indexes]))

    def nearest_face(self, features: np.ndarray | None) -> tuple[int, float] | None:
        """(number of the photo, dlib's distance); None for a picture without a face, or where no photo has one."""
        if features is None or np.isnan(self.features).all():
            return None
        return _smallest(np.linalg.norm(self.features - features, axis=1))

    def nearest_pixels(self, picture: np.ndarray) -> tuple[int, float]:
        """(number of the photo, root-mean-square difference of thumbnails of 32 × 32 pixels, of 255)."""
        return _smallest(np.sqrt(np.square(self.thumbnails - _thumbnail(picture)).mean(1)))


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()


def _smallest(values: np.ndarray) -> tuple[int, float]:
    number = int(np.nanargmin(values))
    return number, float(values[number])
