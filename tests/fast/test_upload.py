"""Uploads: read once, kept nowhere, and of a photo only its faces."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hyperdreambooth_ext.errors import PhotoError
from hyperdreambooth_ext.images.face import MAX_SURROUNDINGS, crop_face
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO
from hyperdreambooth_ext.ui.upload import describe, faces_of, read_upload


def test_an_upload_is_read_and_its_copies_deleted(uploads):
    file = uploads(SAMPLE_PHOTO.read_bytes())
    assert len(read_upload(file)) == 1 and not Path(file.name).exists()


def test_of_a_photo_only_the_surroundings_of_its_faces_are_kept(uploads, sample_photo):
    canvas = np.full((3000, 4000, 3), 127, np.uint8)
    canvas[500 : 500 + len(sample_photo), 700 : 700 + sample_photo.shape[1]] = sample_photo
    whole = Photo(canvas)
    (kept,) = faces_of(whole)
    assert kept.pixels.nbytes < canvas.nbytes / 10 and kept.pixels.base is None
    for size in (64, 512):
        crops = [crop_face(one.pixels, one.faces[0], size).astype(int) for one in (whole, kept)]
        assert np.abs(crops[0] - crops[1]).max() <= 1, "what is learned is the same"
    large = Photo(
        np.asarray(Image.fromarray(sample_photo).resize((4000, 4000 * len(sample_photo) // len(sample_photo[0]))))
    )
    (kept,) = faces_of(large)
    assert max(kept.pixels.shape) <= MAX_SURROUNDINGS
    crops = [crop_face(one.pixels, one.faces[0], 256).astype(int) for one in (large, kept)]
    assert np.abs(crops[0] - crops[1]).mean() < 2


def test_a_file_that_is_no_picture_is_a_sentence_and_deleted_too(uploads):
    file = uploads(b"hello", "notes.txt")
    with pytest.raises(PhotoError, match="no picture"):
        read_upload(file)
    assert not Path(file.name).exists()


def test_a_path_outside_of_the_upload_folder_is_neither_read_nor_deleted(uploads, tmp_path):
    mine = tmp_path / "mine.jpg"
    mine.write_bytes(SAMPLE_PHOTO.read_bytes())
    for path in (mine, tmp_path / "gradio" / ".." / "mine.jpg"):
        with pytest.raises(PhotoError, match="drop it again"):
            read_upload(SimpleNamespace(name=str(path)))
    harmless = uploads(b"x", "x.jpg")
    with pytest.raises(PhotoError):
        read_upload(SimpleNamespace(name=harmless.name, orig_name=str(mine)))
    assert mine.exists()


def test_a_photo_that_is_too_large(uploads, monkeypatch):
    monkeypatch.setattr("hyperdreambooth_ext.images.photo.MAX_PHOTO_BYTES", 1000)
    with pytest.raises(PhotoError, match="larger than"):
        read_upload(uploads(SAMPLE_PHOTO.read_bytes()))


def test_none_one_and_several_faces(sample_photo, small_photo, photo):
    wall = describe((), 1)
    assert "No face was found" in wall and "hdb_warning" in wall
    assert "hdb_warning" not in describe(photo, 1) and describe(photo, 1).count("<img") == 1
    several = describe(photo * 2, 2)
    assert several.count("<img") == 2 and 'hdb_chosen" data-face="2"' in several and "click the one" in several


def test_the_upload_folder_is_gradios(monkeypatch):
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    from hyperdreambooth_ext.ui.upload import _upload_folder

    assert _upload_folder() == (Path(tempfile.gettempdir()) / "gradio").resolve()
