"""The pictures of a comparison."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from hyperdreambooth_ext.files import write_atomically
from hyperdreambooth_ext.images.sheet import Cell, picture_sheet, save_png

from ..people import SYNTHETIC, synthetic_person
from .rows import OURS, ROWS, folder_name

SHOWN = ("plain", "plain, another seed", "styled", "styled")


def write_figures(out: Path, everything: dict) -> None:
    """frontier.png, time.png, size.png and sheet.png (and a smaller sheet.webp) in OUT."""
    rows = everything["rows"]
    _plot(out / "frontier.png", lambda axes: _frontier(axes, rows))
    _plot(out / "time.png", lambda axes: _time(axes, rows, everything["reach"]))
    _plot(out / "size.png", lambda axes: _size(axes, rows))
    _sheet(out, list(rows), min(2, everything["people"]))


def _frontier(axes, rows: dict) -> None:
    for row, figures in rows.items():
        points = sorted((float(m), f["distance"], f["style"]) for m, f in figures["at"].items())
        axes.plot([p[1] for p in points], [p[2] for p in points], **_look(row))
        axes.annotate(f"{points[-1][0]:g}", points[-1][1:], fontsize=6)
    axes.set_xlabel("distance to another photo of the person (dlib; left is more alike)")
    axes.set_ylabel("share of styled pictures that show the style")
    axes.set_title("Multipliers 0 to 1.2: likeness against obedience")


def _time(axes, rows: dict, reach: float) -> None:
    for row, figures in rows.items():
        if figures["curve"]:
            axes.plot([p["seconds"] for p in figures["curve"]], [p["distance"] for p in figures["curve"]], **_look(row))
        else:
            axes.plot([figures["seconds"]], [figures["at"]["1.0"]["distance"]], **_look(row))
    axes.axhline(reach, color="gray", linewidth=0.7, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlabel("seconds of learning")
    axes.set_ylabel("distance to another photo (lower is more alike)")
    axes.set_title("Likeness over time")


def _size(axes, rows: dict) -> None:
    for row, figures in rows.items():
        axes.plot([figures["bytes"] / 1000], [figures["at"]["1.0"]["distance"]], **_look(row))
    axes.set_xscale("log")
    axes.set_xlabel("KB on disk")
    axes.set_ylabel("distance to another photo (lower is more alike)")
    axes.set_title("Size against likeness")


def _look(row: str) -> dict:
    """Ours stands out; the others differ by color and sign."""
    if row == OURS:
        return {"label": row, "color": "black", "linewidth": 2.2, "marker": "o", "zorder": 9}
    number = list(ROWS).index(row)
    return {"label": row, "linewidth": 1, "markersize": 5, "marker": "sv^DPX*<>pdh"[number % 12],
            "color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--", "alpha": 0.85}  # fmt: skip


def _plot(file: Path, plot) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), dpi=110)
    axes = figure.add_subplot()
    plot(axes)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(file, buffer.getvalue())


def _sheet(out: Path, rows: list[str], people: int) -> None:
    """One row per method: the first `people`'s pictures at multiplier 1, the same seeds everywhere."""
    shown: list[tuple[str, list[Cell]]] = []
    for row in rows:
        files = sorted((out / "rows" / folder_name(row)).glob("*_1.0.png"), key=lambda f: int(f.name.split("_")[0]))
        cells: list[Cell] = []
        for file in files[:people]:
            strip = np.asarray(Image.open(file).convert("RGB"))
            side = strip.shape[0]
            pictures = [strip[:, i * side : (i + 1) * side] for i in range(strip.shape[1] // side)]
            cells += [(name, picture) for name, picture in zip(SHOWN, pictures, strict=False)]
        shown.append((row, cells))
    persons = [synthetic_person(SYNTHETIC, int(file.name.split("_")[0]), side) for file in files[:people]]
    photos = [("the photo", person.crop) for person in persons]
    others = [("another photo", person.others[0]) for person in persons]
    top: list[Cell] = [cell for pair in zip(photos, others, strict=True) for cell in (*pair, ("", None), ("", None))]
    sheet = picture_sheet([("The person", top), *shown])
    save_png(sheet, out / "sheet.png")
    sheet.save(out / "sheet.webp", quality=80)
