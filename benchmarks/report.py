"""The tables and the sheet of an evaluation."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hyperdreambooth_ext.images.sheet import picture_sheet, save_png

from .people import Person
from .recognizer import Recognizer, distances

SHOWN = 6


@dataclass(frozen=True)
class Row:
    """One way to make pictures: dlib features [pictures, 128] per person, the first pictures, further figures."""

    name: str
    features: list[np.ndarray]
    shown: list[np.ndarray]
    figures: dict[str, list[float]] = field(default_factory=dict)
    styles: list[float] = field(default_factory=list)


def write_report(out: Path, people: list[Person], rows: list[Row], recognizer: Recognizer, settings: dict) -> None:
    """evaluate.json, evaluate.md and evaluate.png in OUT; `people` are all whose photos are compared with."""
    gallery = [np.stack([recognizer.features(other) for other in person.others]) for person in people]
    table = {row.name: summary(row, gallery) for row in rows}
    settings = {key: str(value) for key, value in settings.items() if key not in ("out", "folder", "hypernetworks")}
    (out / "evaluate.json").write_text(json.dumps({"settings": settings, "rows": table}, indent=2) + "\n")
    markdown = "\n".join(_markdown(table, len(rows[0].features), len(people), sum(map(len, gallery))))
    (out / "evaluate.md").write_text(markdown + "\n", encoding="utf-8")
    sheet = [("The photo", [("", person.crop) for person in people[:SHOWN]])]
    sheet.append(("Another photo of the same person", [("", person.others[0]) for person in people[:SHOWN]]))
    sheet += [(row.name, [("", picture) for picture in row.shown]) for row in rows[1:]]
    save_png(picture_sheet(sheet), out / "evaluate.png")
    print(markdown)


def summary(row: Row, gallery: list[np.ndarray]) -> dict[str, float | list[float]]:
    """The figures of one row, from the features of everybody's other photos; `distances` are person by person."""
    right: list[bool] = []
    own: list[list[float]] = []
    strangers: list[float] = []
    for person, features in enumerate(row.features):
        own.append([])
        for picture in features:
            to_each = distances(picture, gallery)
            nearest = [to.min() for to in to_each]
            right.append(int(np.argmin(nearest)) == person)
            own[-1].append(to_each[person].mean())
            strangers.append(np.mean([to.mean() for i, to in enumerate(to_each) if i != person]))
    figures = {"rank1": np.mean(right), "distance": np.mean(own), "distance_to_others": np.mean(strangers)}
    if row.styles:
        figures["style"] = np.mean(row.styles)
    figures |= {name: np.mean(values) for name, values in row.figures.items()}
    rounded = {name: round(float(value), 3) for name, value in figures.items()}
    return rounded | {"distances": [round(float(np.mean(of)), 4) for of in own]}


def against(row: dict, first: dict) -> str:
    """How much further away than in the row `first` the same people are: the mean over them ± its standard error."""
    further = np.subtract(row["distances"], first["distances"])
    return f"{further.mean():+.3f} ± {standard_error(further):.3f}"


def standard_error(of: np.ndarray) -> float:
    """That of the mean of `of` [N]; no number for a single one."""
    return float(np.std(of, ddof=1) / np.sqrt(len(of))) if len(of) > 1 else float("nan")


def _markdown(table: dict[str, dict], learned: int, people: int, photos: int) -> list[str]:
    floor = table["the photo itself"]["distance_to_others"]
    spread = max(standard_error(np.array(row["distances"])) for row in table.values())
    lines = [
        f"{learned} people, to be found among {people} ({photos} other photos). Two photos of different people: "
        f"distance {floor:.3f}. Standard error of a distance: at most {spread:.3f}.",
        "",
        "| | rank-1 | distance | to other people | style at 0.8 | seconds | KB |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, row in table.items():
        seconds = f"{row['seconds']:.1f}" if "seconds" in row else ""
        kilobytes = f"{row['bytes'] / 1000:.0f}" if "bytes" in row else ""
        style = f"{row['style']:.2f}" if "style" in row else ""
        lines.append(
            f"| {name} | {row['rank1']:.2f} | {row['distance']:.3f} | {row['distance_to_others']:.3f} "
            f"| {style} | {seconds} | {kilobytes} |"
        )
    return lines
