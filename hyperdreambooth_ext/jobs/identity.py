"""How alike a made picture is to the photo: a cosine of the bundled recognizer's features, and how it is told."""

import math
from dataclasses import dataclass

import numpy as np

from ..hypernet.embedder import likeness
from ..hypernet.file import load_hypernetwork
from ..images.face import largest_face
from ..shipped import HYPERNETWORK

# Below it the recognizer knows nobody in a sampled picture: of those that the bundled checkpoint makes of others,
# 90 % are below it (python -m benchmarks.likeness_scale). Soft pictures of the right person may be, too.
KNOWN = 0.36


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
        face = largest_face(picture, len(crop))
        cosine = math.nan if face is None else likeness(recognizer, crop, face)
        return cosine if math.isfinite(cosine) else None

    after_score, before_score = score(after), score(before)
    if after_score is None:
        return Identity.without("no face was found in the picture with the LiDB")
    return Identity(after_score, before_score, _words(after_score, before_score))


def _words(after: float, before: float | None) -> str:
    if after < KNOWN:
        return "No likeness score: the recognizer is not sure about this picture. Compare it with the photo."
    compared = "" if before is None else f" (without the LiDB: {_percent(before)})"
    return f"Likeness {_percent(after)}{compared}"


def _percent(cosine: float) -> str:
    """0 for faces that point apart; a line does not break within it."""
    return f"{100 * max(0.0, cosine):.0f}\u00a0%"
