"""How alike a made picture is to the photo: a cosine of the bundled recognizer's features, and how it is told."""

import math
from dataclasses import dataclass

import numpy as np

from ..hypernet.file import load_hypernetwork
from ..hypernet.likeness import likeness
from ..images.face import crop_face, find_faces
from ..shipped import HYPERNETWORK


@dataclass(frozen=True)
class Identity:
    """`score` and `score_before` are cosines, None without one; `words` tells them in per cent, or why none."""

    score: float | None
    score_before: float | None
    words: str

    @classmethod
    def without(cls, why: str) -> "Identity":
        """No score, and the reason as the rest of a sentence."""
        return cls(None, None, f"No identity score: {why}.")


def compare(crop: np.ndarray, before: np.ndarray, after: np.ndarray) -> Identity:
    """The aligned `crop` of the photo against pictures before and after; all RGB uint8 [S, S, 3]."""
    # Its encoder was taught by a face recognizer. Always the same one, so that the same number means the same.
    recognizer = load_hypernetwork(HYPERNETWORK)

    def score(picture: np.ndarray) -> float | None:
        face = aligned(picture, len(crop))
        cosine = math.nan if face is None else likeness(recognizer, crop, face)
        return cosine if math.isfinite(cosine) else None

    after_score, before_score = score(after), score(before)
    if after_score is None:
        return Identity.without("no face was found in the picture with the LiDB")
    words = f"Likeness {percent(after_score)}"
    if before_score is not None:
        words = f"{words} (without the LiDB: {percent(before_score)})"
    return Identity(after_score, before_score, words)


def percent(cosine: float) -> str:
    """A likeness as it is told: 0 for faces that point apart."""
    return f"{100 * max(0.0, cosine):.0f} %"


def aligned(picture: np.ndarray, size: int) -> np.ndarray | None:
    """The largest face of a picture, cropped as the photo was; None without any."""
    faces = find_faces(picture)
    return crop_face(picture, faces[0], size) if faces else None
