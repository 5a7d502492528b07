"""The face is found, the largest first, turned upright and cut tightly; without one there is a clear answer."""

import cv2
import numpy as np
import pytest

from hyperdreambooth_ext.errors import PhotoError
from hyperdreambooth_ext.images.face import FACE, HEAD, align_matrix, choose_face, face_mask, find_faces, largest_face


def landmarks_in_crop(photo, size=128, framing=FACE):
    face = choose_face(find_faces(photo))
    matrix = align_matrix(face.landmarks, size, framing)
    return face.landmarks @ matrix[:, :2].T + matrix[:, 2]


def test_eyes_are_level_and_the_face_is_centered(sample_photo):
    left, right, _, *mouth = landmarks_in_crop(sample_photo)
    assert abs(left[1] - right[1]) < 6
    assert 45 < (left[0] + right[0]) / 2 < 83
    assert left[1] < mouth[0][1] < 128


def test_the_framing_of_a_head_leaves_room_for_hair_and_neck(sample_photo):
    tight, wide = (landmarks_in_crop(sample_photo, framing=framing) for framing in (FACE, HEAD))
    between_eyes = [np.hypot(*(marks[1] - marks[0])) / 128 for marks in (tight, wide)]
    assert 0.6 < between_eyes[1] / between_eyes[0] < 0.85
    assert wide[0][1] > tight[0][1], "more room above the eyes"
    assert 128 - wide[3][1] > 128 - tight[3][1], "and below the mouth"


@pytest.mark.parametrize("angle", [-25, 20])
def test_a_tilted_head_is_turned_upright(sample_photo, angle):
    height, width = sample_photo.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    tilted = cv2.warpAffine(sample_photo, turn, (width, height))
    assert np.abs(landmarks_in_crop(tilted) - landmarks_in_crop(sample_photo)).max() < 8


@pytest.mark.parametrize("scale", [0.15, 0.3, 2.0])
def test_the_crop_does_not_depend_on_the_photos_size(sample_photo, scale):
    resized = cv2.resize(sample_photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    assert np.abs(landmarks_in_crop(resized) - landmarks_in_crop(sample_photo)).max() < 7


def test_the_largest_of_several_faces_comes_first(sample_photo):
    large = cv2.resize(sample_photo, (424, 632))
    small = cv2.resize(sample_photo, (212, 316))
    both = np.full((632, 640, 3), 127, np.uint8)
    both[:316, :212] = small
    both[:, 216:] = large
    faces = find_faces(both)
    assert len(faces) == 2 and faces[0].size > 1.5 * faces[1].size
    assert choose_face(find_faces(both)).box[0] > 216


def test_a_close_up_that_fills_the_frame_is_found(sample_photo):
    close_up = largest_face(sample_photo, 512)
    assert choose_face(find_faces(close_up)).size > 300


def test_no_face_is_said():
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    with pytest.raises(PhotoError, match="No face was found: use a photo"):
        choose_face(find_faces(noise))


def test_a_face_under_40_pixels_is_said(sample_photo):
    box = choose_face(find_faces(sample_photo)).box
    tiny = cv2.resize(sample_photo, None, fx=30 / box[3], fy=30 / box[3], interpolation=cv2.INTER_AREA)
    with pytest.raises(PhotoError, match="pixels high: it needs at least 40"):
        choose_face(find_faces(tiny))


def test_the_mask_covers_the_face_and_leaves_the_corners():
    mask = face_mask(128)
    assert mask.dtype == np.float32 and mask[64, 64] == 1 and mask[0, 0] == 0 and mask[127, 127] == 0
