"""Pictures as files, and a sheet of them with words above."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..files import write_atomically

CELL, GAP, LABEL, TITLE = 160, 8, 34, 30
_INK, _PAPER = (30, 30, 36), (250, 249, 246)

Cell = tuple[str, np.ndarray | None]


def picture_sheet(rows: Sequence[tuple[str, Sequence[Cell]]]) -> Image.Image:
    """`rows` of (title, [(label, RGB uint8 picture or None)]), one title a row, labels under the pictures."""
    columns = max(len(cells) for _, cells in rows)
    height = len(rows) * (TITLE + CELL + LABEL + GAP) + GAP
    sheet = Image.new("RGB", (columns * (CELL + GAP) + GAP, height), _PAPER)
    draw, font, bold = ImageDraw.Draw(sheet), _font(13), _font(15)
    for i, (title, cells) in enumerate(rows):
        top = GAP + i * (TITLE + CELL + LABEL + GAP)
        draw.text((GAP, top + 6), title, fill=_INK, font=bold)
        for j, (label, picture) in enumerate(cells):
            left = GAP + j * (CELL + GAP)
            if picture is not None:
                image = Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.LANCZOS)
                sheet.paste(image, (left, top + TITLE))
            draw.text((left, top + TITLE + CELL + 3), label, fill=_INK, font=font)
    return sheet


def jpeg(picture: np.ndarray, quality: int = 92) -> bytes:
    """RGB uint8 [H, W, 3] as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def save_png(picture: np.ndarray | Image.Image, path: Path, overwrite: bool = True) -> Path:
    """Write a PNG so that it is whole or absent. Raises FileError for one that is there and may not be replaced."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    write_atomically(Path(path), buffer.getvalue(), overwrite=overwrite)
    return Path(path)


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has a bitmap of one size
        return _font_of_matplotlib(size)


def _font_of_matplotlib(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """AUTOMATIC1111 and Forge have Pillow 9.5, and matplotlib with their gradio; the command line may have neither."""
    try:
        import matplotlib
    except ImportError:
        return ImageFont.load_default()
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
