"""How near the bundled recognizer's features of a sampled picture are to the photo's. Told by the API alone: it was
not shown to agree with people, nor with another recognizer."""

import math
from dataclasses import dataclass

import numpy as np

from ..hypernet.embedder import likeness
from ..hypernet.file import load_hypernetwork
from ..images.face import FRAMINGS, largest_face
from ..shipped import HYPERNETWORK


@dataclass(frozen=True)
class Identity:
    """`score` and `score_before` are cosines, None without one; `words` says why."""

    score: float | None = None
    score_before: float | None = None
    words: str = ""


def compare(crop: np.ndarray, before: np.ndarray, after: np.ndarray) -> Identity:
    """The `crop` of the photo against pictures before and after; all RGB uint8 [S, S, 3]."""
    # Always the same recognizer, so that the same number means the same.
    recognizer = load_hypernetwork(HYPERNETWORK)
    framing = FRAMINGS[recognizer.config.framing]
    face_alone = largest_face(crop, len(crop), framing)
    photo = crop if face_alone is None else face_alone

    def score(picture: np.ndarray) -> float | None:
        face = largest_face(picture, len(crop), framing)
        cosine = math.nan if face is None else likeness(recognizer, photo, face)
        return cosine if math.isfinite(cosine) else None

    after_score = score(after)
    if after_score is None:
        return Identity(words="No identity score: no face was found in the picture with the LiDB.")
    return Identity(after_score, score(before))
