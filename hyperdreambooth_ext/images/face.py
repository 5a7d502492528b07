"""Find the face in a photo, turn it upright and cut it out."""

from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import PhotoError
from ..shipped import MODELS

MIN_FACE_PIXELS = 40
MAX_SURROUNDINGS = 1536
DETECTOR_FILE = MODELS / "face_detection_yunet_2023mar.onnx"
# YuNet was trained on small faces: a close-up is found best when the photo is made small first.
_DETECTOR_SIDES = (320, 640, 1280)
_MIN_SCORE = 0.7


@dataclass(frozen=True)
class Face:
    """One face in pixels of the photo: box (x, y, width, height), five landmarks [5, 2] and the detector's score.

    Landmarks: the eye on the picture's left, the eye on its right, nose tip, left and right mouth corner.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float

    @property
    def size(self) -> float:
        """The longer side of the box, in pixels."""
        return max(self.box[2], self.box[3])


def find_faces(photo: np.ndarray) -> list[Face]:
    """All faces of an RGB uint8 photo [height, width, 3], the largest first; an empty list when there is none."""
    longest = max(photo.shape[:2])
    for side in _DETECTOR_SIDES:
        faces = _detect(photo, min(1.0, side / longest))
        if faces or side >= longest:
            break
    return sorted(faces, key=lambda face: face.size, reverse=True)


def choose_face(faces: list[Face], number: int = 1) -> Face:
    """The face of that number out of `faces`, the largest first.

    Raises PhotoError when there is none, fewer than `number`, or when it is smaller than MIN_FACE_PIXELS.
    """
    if not faces:
        raise PhotoError("No face was found: use a photo that shows the face from the front, in even light.")
    if not 1 <= number <= len(faces):
        raise PhotoError(f"The photo shows fewer than {number} faces: choose a face from 1 to {len(faces)}.", "face")
    face = faces[number - 1]
    if face.size < MIN_FACE_PIXELS:
        raise PhotoError(f"The face is only {face.size:.0f} pixels high: it needs at least {MIN_FACE_PIXELS}.")
    return face


@dataclass(frozen=True)
class Framing:
    """What an upright square crop shows. Its side is so many distances between the `eyes`, or from eyes to `mouth`,
    whichever is longer; its center lies so many of the latter `below` the eyes."""

    eyes: float
    mouth: float
    below: float


# In a latent of a few pixels each pixel of face counts.
FACE = Framing(3.1, 2.95, 0.3)
# With hair and neck, as portraits are: a picture of somebody is no mask.
HEAD = Framing(4.0, 3.9, 0.11)
FRAMINGS = {"face": FACE, "head": HEAD}


def align_matrix(landmarks: np.ndarray, size: int, framing: Framing = FACE) -> np.ndarray:
    """The similarity transform [2, 3] from photo pixels to an upright square crop of `size` pixels."""
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    across, down = landmarks[1] - landmarks[0], mouth - eyes
    right = across - np.array([-down[1], down[0]])
    right = right / (np.hypot(*right) + 1e-9)
    side = max(framing.eyes * np.hypot(*across), framing.mouth * np.hypot(*down))
    scale = size / side
    rotation = np.array([[right[0], right[1]], [-right[1], right[0]]]) * scale
    center = eyes + framing.below * down
    return np.c_[rotation, size / 2 - rotation @ center]


def crop_face(photo: np.ndarray, face: Face, size: int, framing: Framing = FACE) -> np.ndarray:
    """The face upright and centered, RGB uint8 [size, size, 3]; what lies outside the photo is mirrored."""
    return warp(photo, align_matrix(face.landmarks, size, framing), size)


def largest_face(picture: np.ndarray, size: int, framing: Framing = FACE) -> np.ndarray | None:
    """The largest face of a picture, cropped as `crop_face` does; None without any."""
    faces = find_faces(picture)
    return crop_face(picture, faces[0], size, framing) if faces else None


def surroundings(photo: np.ndarray, face: Face) -> tuple[np.ndarray, Face]:
    """A copy of what every crop of `face` is made of, at most MAX_SURROUNDINGS pixels long, and the face within it."""
    matrix = align_matrix(face.landmarks, 1)
    corners = np.array([[x, y] for x in (-0.25, 1.25) for y in (-0.25, 1.25)]) - matrix[:, 2]
    corners = corners @ np.linalg.inv(matrix[:, :2]).T
    left, top = np.clip(np.floor(corners.min(0)), 0, None).astype(int)
    right, bottom = np.ceil(corners.max(0)).astype(int)
    cut = photo[top:bottom, left:right]
    scale = min(1.0, MAX_SURROUNDINGS / max(cut.shape[:2]))
    width, height = (max(1, round(side * scale)) for side in (cut.shape[1], cut.shape[0]))
    cut = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else cut.copy()
    x, y, *sides = face.box
    box = ((x - left) * scale, (y - top) * scale, sides[0] * scale, sides[1] * scale)
    return cut, Face(box, (face.landmarks - [left, top]) * scale, face.score)


def warp(photo: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Cut `photo` along `matrix`; a reduction averages over all pixels instead of skipping some."""
    scale = np.hypot(matrix[0, 0], matrix[0, 1])
    if scale < 1:
        photo = cv2.GaussianBlur(photo, (0, 0), sigmaX=max(0.4 / scale - 0.2, 0.1))
    return cv2.warpAffine(photo, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def face_mask(size: int) -> np.ndarray:
    """Where the face lies in an aligned crop: float32 [size, size], 1 on the face, falling softly to 0 outside."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    distance = np.sqrt((x / 0.40) ** 2 + (y / 0.50) ** 2)
    return np.clip((1.15 - distance) / 0.3, 0, 1)


def _detect(photo: np.ndarray, scale: float) -> list[Face]:
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    small = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    # A face that fills the frame is found only with some room around it.
    margin = max(16, round(0.25 * max(height, width)))
    framed = cv2.copyMakeBorder(small, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    detector = cv2.FaceDetectorYN.create(str(DETECTOR_FILE), "", (framed.shape[1], framed.shape[0]), _MIN_SCORE)
    _, rows = detector.detect(cv2.cvtColor(framed, cv2.COLOR_RGB2BGR))
    return [_face(row, margin, scale) for row in ([] if rows is None else rows)]


def _face(row: np.ndarray, margin: int, scale: float) -> Face:
    x, y, width, height = (row[:4] - [margin, margin, 0, 0]) / scale
    # YuNet names eyes and mouth corners by the person's side; the picture's left comes first either way.
    landmarks = (row[4:14].reshape(5, 2) - margin) / scale
    return Face((float(x), float(y), float(width), float(height)), landmarks.astype(np.float64), float(row[14]))
