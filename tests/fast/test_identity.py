"""The identity score compares faces as the photo was cropped, and says why where there is none."""

import numpy as np
from PIL import Image

from hyperdreambooth_ext.images.face import choose_face, find_faces, largest_face
from hyperdreambooth_ext.jobs.identity import compare

WALL = np.full((128, 128, 3), 120, np.uint8)


def test_a_turned_face_in_a_larger_picture_is_aligned_as_the_photo_was(sample_photo):
    crop = largest_face(sample_photo, 128)
    canvas = Image.fromarray(WALL).resize((256, 256))
    canvas.paste(Image.fromarray(crop).resize((160, 160)), (70, 40))
    picture = np.asarray(canvas.rotate(20, Image.Resampling.BICUBIC, fillcolor=(120, 120, 120)))
    again = largest_face(picture, 128)
    assert again.shape == crop.shape
    assert np.abs(choose_face(find_faces(again)).landmarks - choose_face(find_faces(crop)).landmarks).mean() < 5
    assert largest_face(WALL, 128) is None


def test_without_a_face_in_the_picture_there_is_no_score_but_a_reason(sample_photo):
    crop = largest_face(sample_photo, 128)
    identity = compare(crop, WALL, WALL)
    assert identity.score is None and identity.words.startswith("No identity score: ")


def test_the_same_face_is_near(sample_photo):
    crop = largest_face(sample_photo, 128)
    identity = compare(crop, WALL, crop)
    assert identity.score > 0.95 and identity.score_before is None and not identity.words
