"""An independent face recognizer: dlib's ResNet, which no training here has ever seen.

Packages: dlib-bin and face_recognition_models (the extra `benchmarks`).
"""

from functools import cached_property
from importlib import resources

import cv2
import numpy as np

# Where dlib's own detector puts its box in our aligned crops, as shares of the side (left, top, right, bottom): the
# mean over detected faces. A fixed box measures pictures in which the detector finds nothing, such as sketches.
BOX = (0.11, 0.17, 0.885, 0.94)
CHIP = 256


class Recognizer:
    """Features of aligned crops; the distance of two photos of one person is below about 0.6."""

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

    def features(self, crop: np.ndarray) -> np.ndarray:
        """RGB uint8 [S, S, 3], an aligned crop -> float64 [128]."""
        dlib, landmarks, network = self._dlib
        large = cv2.resize(crop, (CHIP, CHIP), interpolation=cv2.INTER_CUBIC)
        shape = landmarks(large, dlib.rectangle(*(round(share * CHIP) for share in BOX)))
        return np.array(network.compute_face_descriptor(large, shape))


def distances(picture: np.ndarray, gallery: list[np.ndarray]) -> list[np.ndarray]:
    """How far `picture`'s features [128] are from each photo of each person, `gallery` of [photos, 128]."""
    return [np.linalg.norm(photos - picture, axis=-1) for photos in gallery]
