"""All judges of one picture: who is on it, whether there is one good face, how sharp it is.

One judge alone is easily fooled, a recognizer by fragments: `tests/fast/test_judges.py` breaks photos on purpose and
holds which judge falls.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .face_quality import detect_face, sharpness
from .inception import Inception
from .recognizer import Recognizer

# Of stored scores: 1 had a recognizer with its box at a fixed place, and no other judge.
VERSION = 2


@dataclass(frozen=True)
class Score:
    """Of one picture: dlib's features [128], whether it holds exactly one good face, how sharp face and eyes are.

    Where no face is found there are no features and no sharpness.
    """

    features: np.ndarray | None
    good: bool
    sharpness: float | None = None
    eyes: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Features rounded to five digits."""
        features = None if self.features is None else [round(float(x), 5) for x in self.features]
        return {**asdict(self), "features": features}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Score":
        """What `as_json` gave."""
        return cls(**{**stored, "features": None if stored["features"] is None else np.array(stored["features"])})


class Judges:
    """All that look at pictures; each loads its network on first use."""

    def __init__(self) -> None:
        self.recognizer, self.inception = Recognizer(), Inception()

    def score(self, picture: np.ndarray) -> Score:
        """Of RGB uint8 [H, W, 3]."""
        found = detect_face(picture)
        if found is None:
            return Score(None, False)
        return Score(self.recognizer.of_face(picture, found.face), found.good, *sharpness(picture, found.face))


def good_share(scores: Sequence[Score]) -> float:
    """The share of pictures with exactly one good face."""
    return float(np.mean([score.good for score in scores]))


def relative_sharpness(scores: Sequence[Score], photos: Sequence[Score]) -> dict[str, float]:
    """The medians of the faces' `sharpness` and of their `eyes`, each 1 for the photos; empty when no face is found."""
    with_face, photos = ([one for one in of if one.features is not None] for of in (scores, photos))
    if not with_face or not photos:
        return {}
    return {name: _median(with_face, name) / _median(photos, name) for name in ("sharpness", "eyes")}


def _median(scores: Sequence[Score], name: str) -> float:
    return float(np.median([getattr(score, name) for score in scores]))
