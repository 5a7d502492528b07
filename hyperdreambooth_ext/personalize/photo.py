"""Reading a photo that a stranger took: any orientation, any colour mode, and an answer for each that is bad."""

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import PhotoError

MAX_MEGAPIXELS = 64
MAX_PHOTO_BYTES = 20_000_000  # of a photo that is sent: to the tab or the API


def load_photo(path: str | Path) -> np.ndarray:
    """Read a photo upright as RGB, uint8 [height, width, 3].

    EXIF rotation is applied; transparency is laid over mid-grey; grayscale, CMYK and 16-bit are converted.
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


def _read(file: BinaryIO, name: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                _check_size(name, image)
                image.load()
                return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise PhotoError(f"{name} is no picture that can be read: use a JPEG, PNG or WebP file.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PhotoError(f"{name} is damaged or cut short ({error}): save or copy it again.") from error


def _check_size(name: str, image: Image.Image) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > MAX_MEGAPIXELS:
        raise PhotoError(
            f"{name} has {megapixels:.0f} megapixels: scale it below {MAX_MEGAPIXELS}, the face is cropped anyway."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _sixteen_bit_to_rgb(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        backdrop = Image.new("RGBA", rgba.size, (127, 127, 127, 255))
        return Image.alpha_composite(backdrop, rgba).convert("RGB")
    return image.convert("RGB")


def _sixteen_bit_to_rgb(image: Image.Image) -> Image.Image:
    # Pillow clips 16-bit values at 255 when it converts them, which turns most of the picture white.
    values = np.asarray(image, dtype=np.float64)
    top = 65535.0 if values.max() > 255 else 255.0
    return Image.fromarray(np.clip(values / top * 255, 0, 255).astype(np.uint8)).convert("RGB")
