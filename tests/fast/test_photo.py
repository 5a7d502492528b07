"""Any photo is read upright and in color, or refused with a sentence."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from hyperdreambooth_ext.errors import PhotoError
from hyperdreambooth_ext.images import sheet
from hyperdreambooth_ext.images.photo import load_photo

COLORS = np.zeros((40, 60, 3), np.uint8)
COLORS[:, :30] = (250, 20, 20)
COLORS[:20] //= 2


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLORS).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_photo(tmp_path / "a.png"), np.rot90(COLORS, -1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "YCbCr", "I;16"])
def test_every_color_mode_becomes_rgb(tmp_path, mode):
    gray = Image.fromarray(COLORS).convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    else:
        image = Image.fromarray(COLORS).convert(mode)
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    image.save(path)
    photo = load_photo(path)
    assert photo.shape == (40, 60, 3) and photo.dtype == np.uint8
    assert abs(photo.mean() - COLORS.mean()) < 60


def test_sixteen_bits_keep_their_brightness(tmp_path):
    values = np.linspace(0, 65535, 2400).reshape(40, 60).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.abs(load_photo(tmp_path / "a.png")[..., 0].astype(int) - values // 257).max() <= 1


def test_transparency_is_laid_over_gray(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert (load_photo(tmp_path / "a.png") == 127).all()


def test_a_picture_of_100_megapixels_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")
    with pytest.raises(PhotoError, match="100 megapixels: scale it below 64"):
        load_photo(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 30])
def test_what_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(PhotoError, match=r"a\.jpg"):
        load_photo(tmp_path / "a.jpg")


def test_a_truncated_picture_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:5000])
    with pytest.raises(PhotoError, match="damaged or cut short"):
        load_photo(tmp_path / "b.jpg")


def test_a_missing_photo_and_a_folder_are_said(tmp_path):
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(PhotoError, match="There is no photo at"):
            load_photo(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_undone_as_pillow_does(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLORS).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(load_photo(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "EPS", "ICO", "PPM", "PDF"])
def test_formats_that_no_camera_writes_are_never_opened(tmp_path, format):
    Image.fromarray(COLORS).save(tmp_path / "a.jpg", format)
    with pytest.raises(PhotoError, match="use a JPEG, PNG or WebP file"):
        load_photo(tmp_path / "a.jpg")


def test_a_picture_that_is_taller_than_a_strip_is_whole(tmp_path):
    tall = np.random.default_rng(0).integers(0, 255, (700, 30, 3), np.uint8)
    Image.fromarray(tall).save(tmp_path / "a.png")
    assert np.array_equal(load_photo(tmp_path / "a.png"), tall)


def test_the_words_of_a_sheet_are_letters_of_the_size_asked_for():
    """Pillow 9.5, which AUTOMATIC1111 has, draws its own in one size alone."""
    small, large = (sheet._font(size).getbbox("held-out face") for size in (12, 36))
    assert large[2] > 2.5 * small[2] and large[3] > 2 * small[3]
