"""The table and the sheet of `benchmarks.faces`."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.files import write_atomically
from hyperdreambooth_ext.images.sheet import Cell, picture_sheet, save_png

from .inception import fid, kid
from .judges import Judges, good_share, relative_sharpness
from .nearest import PhotoIndex
from .score_cache import Frame, ScoreCache, Scored

SHOWN = 64
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
# key, heading, how it is written
_COLUMNS = (
    ("good_face", "one good face", "{:.3f}"), ("sharpness", "sharpness", "{:.2f}"), ("eyes", "eyes", "{:.2f}"),
    ("fid", "FID", "{:.1f}"), ("kid", "KID × 1000", "{:.1f}"), ("nearest", "to the nearest photo", "{:.3f}"),
)  # fmt: skip


def write_report(out: Path, pictures: list[Path], photos: Path, photo_frame: Frame, nearest: Path | None) -> None:
    """faces.json, faces.md and faces.png in OUT. `photos` and `nearest` are folders.

    FID compares as many photos as pictures, evenly out of the folder: fewer of both have a larger FID.
    """
    cache, frame = ScoreCache(out / "scores", Judges()), Frame("square", photo_frame.size)
    sampled = cache.scored(pictures, frame)
    real = cache.scored(_evenly(photos_in(photos), len(pictures)), photo_frame)
    table = {"sampled": _figures(sampled, real), "the photos": _figures(real, real)}
    shown = [frame.read(file) for file in pictures[:SHOWN]]
    cells: list[list[Cell]] = [[(f"{number}", picture)] for number, picture in enumerate(shown)]
    if nearest is not None:
        files, index = cache.index(photos_in(nearest), photo_frame)
        for row, scored in (("sampled", sampled), ("the photos", real)):
            table[row]["nearest"] = _median_distance(scored, index)
        for of, picture, score in zip(cells, shown, sampled.scores, strict=False):
            of += _neighbors(picture, score.features, index, files, photo_frame)
    settings = {"pictures": len(sampled.files), "photos": len(real.files), "size": frame.size}
    write_atomically(out / "faces.json", (json.dumps({**settings, "rows": table}, indent=2) + "\n").encode())
    markdown = "\n".join(_markdown(table, settings)) + "\n"
    write_atomically(out / "faces.md", markdown.encode())
    save_png(picture_sheet(_sheet(cells)), out / "faces.png")
    print(markdown)


def photos_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name. Raises UserError when there is none."""
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in _ENDINGS) if folder.is_dir() else []
    if not found:
        raise UserError(f"There is no photo in {folder}: check the folder.")
    return found


def _evenly(files: list[Path], count: int) -> list[Path]:
    return [files[i] for i in np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)]


def _figures(scored: Scored, photos: Scored) -> dict[str, float]:
    figures = {"good_face": good_share(scored.scores), **relative_sharpness(scored.scores, photos.scores)}
    equal = min(len(scored.files), len(photos.files))
    if scored is not photos and equal > 1:
        figures["fid"] = fid(scored.inception[:equal], photos.inception[:equal])
        figures["kid"] = 1000 * kid(scored.inception, photos.inception)
    return {name: round(value, 4) for name, value in figures.items()}


def _median_distance(scored: Scored, index: PhotoIndex) -> float:
    """Of the pictures shown to the nearest photo, by dlib; far below that of unseen photos is memorized."""
    found = [index.nearest_face(score.features) for score in scored.scores[:SHOWN]]
    return round(float(np.median([distance for _, distance in filter(None, found)])), 4)


def _neighbors(
    picture: np.ndarray, features: np.ndarray | None, index: PhotoIndex, files: Sequence[Path], frame: Frame
) -> list[Cell]:
    """The nearest photo by dlib's features and the one by pixels."""
    face = index.nearest_face(features)
    by_face: Cell = ("no face", None) if face is None else (f"by face, {face[1]:.2f}", frame.read(files[face[0]]))
    number, difference = index.nearest_pixels(picture)
    return [by_face, (f"by pixels, {difference:.0f}", frame.read(files[number]))]


def _sheet(cells: list[list[Cell]]) -> list[tuple[str, list[Cell]]]:
    """Every picture with its neighbors at its right."""
    each = len(cells[0])
    in_a_row = 4 if each > 1 else 8
    title = "Sampled, the nearest training photo by face, by pixels" if each > 1 else "Sampled"
    rows = [sum(cells[i : i + in_a_row], []) for i in range(0, len(cells), in_a_row)]
    return [(title if i == 0 else "", row) for i, row in enumerate(rows)]


def _markdown(table: dict[str, dict[str, float]], settings: dict[str, int]) -> list[str]:
    columns = [column for column in _COLUMNS if any(column[0] in row for row in table.values())]
    lines = [
        f"{settings['pictures']} pictures and {settings['photos']} photos at {settings['size']} px. "
        "Fewer pictures have a larger FID: compare equal numbers only.",
        "",
        f"| | {' | '.join(heading for _, heading, _ in columns)} |", "|---" * (len(columns) + 1) + "|",
    ]  # fmt: skip
    for name, row in table.items():
        cells = [form.format(row[key]) if key in row else "" for key, _, form in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
