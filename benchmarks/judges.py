"""What is asked of every picture, and of a set of them.

One judge alone is easily fooled: a recognizer finds a person in fragments. Together they are not (`tests/fast/
test_judges.py` breaks photos on purpose and sees which judge falls).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .face_quality import look, sharpness
from .inception import Inception
from .recognizer import Recognizer

# Of the figures that are kept: 1 had a recognizer with its box at a fixed place, and no other judge.
VERSION = 2


@dataclass(frozen=True)
class Verdict:
    """What is seen in one picture: who it is (dlib's features [128]), how sharp the face and its eyes are, and whether
    there is exactly one good face. Where no face is found there are no features, and nothing is sharp."""

    features: np.ndarray | None
    good: bool
    sharpness: float | None = None
    eyes: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Features rounded to five digits."""
        features = None if self.features is None else [round(float(x), 5) for x in self.features]
        return {**asdict(self), "features": features}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Verdict":
        """What `as_json` gave."""
        return cls(**{**stored, "features": None if stored["features"] is None else np.array(stored["features"])})


class Judges:
    """All that look at pictures; each loads its network on first use."""

    def __init__(self) -> None:
        self.recognizer, self.inception = Recognizer(), Inception()

    def verdict(self, picture: np.ndarray) -> Verdict:
        """Of RGB uint8 [H, W, 3]."""
        seen = look(picture)
        if seen is None:
            return Verdict(None, False)
        return Verdict(self.recognizer.of_face(picture, seen.face), seen.good, *sharpness(picture, seen.face))


def good_share(verdicts: Sequence[Verdict]) -> float:
    """The share of pictures with exactly one good face."""
    return float(np.mean([verdict.good for verdict in verdicts]))


def relative_sharpness(verdicts: Sequence[Verdict], photos: Sequence[Verdict]) -> dict[str, float]:
    """The medians of the faces' `sharpness` and of their `eyes`, each 1 for the photos; empty when no face is found."""
    with_face, photos = ([one for one in of if one.features is not None] for of in (verdicts, photos))
    if not with_face or not photos:
        return {}
    return {name: _median(with_face, name) / _median(photos, name) for name in ("sharpness", "eyes")}


def _median(verdicts: Sequence[Verdict], name: str) -> float:
    return float(np.median([getattr(verdict, name) for verdict in verdicts]))
