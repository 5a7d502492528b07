"""Reading a photo that a stranger took: any orientation, any color mode, and an answer for each that is bad."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import PhotoError
from ..texts import plain_text
from .face import Face, find_faces, surroundings

# Pillow reads sixty formats, some by starting other programs: nothing but what cameras and browsers write is opened.
FORMATS = ("JPEG", "PNG", "WEBP")
MAX_MEGAPIXELS = 64
MAX_SIDE = 32_766  # OpenCV warps no longer pictures
MAX_PHOTO_BYTES = 20_000_000  # of a photo that is sent: to the tab or the API

_STRIP = 256
# What a decoder raises on bytes that no camera wrote depends on the format, the place and Pillow's version.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError,
    AssertionError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo, RGB uint8 [height, width, 3], on its way from the upload to the saved file."""

    pixels: np.ndarray = field(repr=False)

    @cached_property
    def faces(self) -> list[Face]:
        """Its faces, the largest first; looked for when they are first asked for, and never again."""
        return find_faces(self.pixels)

    def around(self, face: Face) -> "Photo":
        """One face with its surroundings, so that the rest of the photo can be forgotten."""
        pixels, face = surroundings(self.pixels, face)
        photo = Photo(pixels)
        vars(photo)["faces"] = [face]
        return photo


def load_photo(path: str | Path) -> np.ndarray:
    """Read a photo upright as RGB, uint8 [height, width, 3].

    JPEG, PNG and WebP are read. EXIF rotation is applied; transparency is laid over mid-gray; grayscale, CMYK and
    16-bit are converted.
    Raises PhotoError when the file is missing, no picture, damaged, or larger than MAX_MEGAPIXELS.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _read(file, path.name)
    except (FileNotFoundError, IsADirectoryError):
        raise PhotoError(f"There is no photo at {path}: check the path.") from None
    except OSError as error:
        raise PhotoError(f"{path.name} cannot be read ({error.strerror or error}): check its permissions.") from error


def photo_from_bytes(content: bytes, name: str = "The photo") -> np.ndarray:
    """A photo that was sent rather than stored, read as `load_photo` does; `name` is what the errors call it."""
    return _read(io.BytesIO(content), name)


def check_photo_bytes(count: int) -> None:
    """Raises PhotoError when a photo of so many bytes is too large to be sent."""
    if count > MAX_PHOTO_BYTES:
        raise PhotoError(f"The photo is larger than {MAX_PHOTO_BYTES // 1_000_000} MB: save it smaller, as a JPEG.")


def _read(file: BinaryIO, name: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _to_rgb(_upright(file, name))
    except (UnidentifiedImageError, Image.DecompressionBombError):
        if name.lower().endswith((".heic", ".heif")):
            raise PhotoError(f"{name} is a HEIC photo, which cannot be read here: save it as a JPEG.") from None
        raise PhotoError(f"{name} is no picture that can be read: use a JPEG, PNG or WebP file.") from None
    except _DAMAGED as error:
        why = plain_text(str(error), 200)
        raise PhotoError(f"{name} is damaged or cut short ({why}): save or copy it again.") from error


def _upright(file: BinaryIO, name: str) -> Image.Image:
    # On its own, so that the pixels as they lay are forgotten before the upright ones are converted.
    with Image.open(file, formats=FORMATS) as image:
        _check_size(name, image)
        image.load()
        return ImageOps.exif_transpose(image)


def _check_size(name: str, image: Image.Image) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > MAX_MEGAPIXELS:
        raise PhotoError(f"{name} has {megapixels:.0f} megapixels: scale it below {MAX_MEGAPIXELS}.")
    if max(image.size) > MAX_SIDE:
        raise PhotoError(f"{name} is {max(image.size)} pixels long: use one of at most {MAX_SIDE} on each side.")


def _to_rgb(image: Image.Image) -> np.ndarray:
    """RGB uint8 [H, W, 3], converted in strips: a large picture is never in memory three times."""
    photo = np.empty((image.height, image.width, 3), np.uint8)
    convert = _convert_deep(image) if image.mode in ("I", "F") or image.mode.startswith("I;16") else _convert
    for top in range(0, image.height, _STRIP):
        strip = image.crop((0, top, image.width, min(top + _STRIP, image.height)))
        strip.info = image.info
        photo[top : top + _STRIP] = convert(strip)
    return photo


def _convert(strip: Image.Image) -> np.ndarray:
    if strip.mode in ("RGBA", "LA", "PA") or "transparency" in strip.info:
        rgba = strip.convert("RGBA")
        backdrop = Image.new("RGBA", rgba.size, (127, 127, 127, 255))
        strip = Image.alpha_composite(backdrop, rgba)
    return np.asarray(strip.convert("RGB"))


def _convert_deep(image: Image.Image) -> Callable[[Image.Image], np.ndarray]:
    """Pillow clips 16-bit values at 255 when it converts them, which turns most of the picture white."""
    top = 65535.0 if image.getextrema()[1] > 255 else 255.0

    def convert(strip: Image.Image) -> np.ndarray:
        values = np.asarray(strip, dtype=np.float32)
        return np.clip(values / top * 255, 0, 255).astype(np.uint8)[..., None]

    return convert
