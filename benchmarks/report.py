"""The tables and the sheet of an evaluation."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hyperdreambooth_ext.images.sheet import Cell, picture_sheet, save_png

from .inception import fid, kid
from .judges import Judges, Score, good_share, relative_sharpness
from .people import Person
from .recognizer import Gallery, features_of_all

SHOWN = 6
NOTHING_LEARNED = "none"
# Of a row's figures, in the order of the table: key, heading, how it is written.
COLUMNS = (
    ("rank1", "rank-1", "{:.2f}".format), ("distance", "distance", "{:.3f}".format),
    ("distance_to_others", "to other people", "{:.3f}".format), ("copy", "copy", "{:+.3f}".format),
    ("good_face", "one good face", "{:.2f}".format), ("sharpness", "sharpness", "{:.2f}".format),
    ("eyes", "eyes", "{:.2f}".format), ("fid", "FID", "{:.0f}".format), ("kid", "KID × 1000", "{:.0f}".format),
    ("fid_to_none", "FID to none", "{:.0f}".format), ("style", "style at 0.8", "{:.2f}".format),
    ("seconds", "seconds", "{:.1f}".format), ("bytes", "KB", lambda size: f"{size / 1000:.0f}"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One way to make pictures: of each person the scores and the first picture, further figures, styles."""

    name: str
    scores: list[list[Score]]
    pictures: list[np.ndarray]
    figures: dict[str, list[float]] = field(default_factory=dict)
    styles: list[float] = field(default_factory=list)


class Reference:
    """What rows are measured against: the photos of `people`, of whom the first `learned` were learned.

    Of each person the other photos say who it is; the first of them stands for how photos look.
    """

    def __init__(self, people: Sequence[Person], learned: int, judges: Judges) -> None:
        self.gallery = Gallery([features_of_all(person.others, judges.recognizer) for person in people])
        self.learned = [judges.score(person.crop) for person in people[:learned]]
        self.inception = judges.inception.features([person.others[0] for person in people[:learned]])


def write_report(out: Path, people: list[Person], rows: list[Row], judges: Judges, settings: dict) -> None:
    """evaluate.json, evaluate.md and evaluate.png in OUT; `people` are all whose photos are compared with."""
    reference = Reference(people, len(rows[0].scores), judges)
    inception = {row.name: judges.inception.features(row.pictures) for row in rows}
    table = {row.name: {**summary(row, reference), **distribution(row.name, inception, reference)} for row in rows}
    settings = {key: str(value) for key, value in settings.items() if key not in ("out", "folder", "hypernetworks")}
    (out / "evaluate.json").write_text(json.dumps({"settings": settings, "rows": table}, indent=2) + "\n")
    markdown = "\n".join(_markdown(table, reference))
    (out / "evaluate.md").write_text(markdown + "\n", encoding="utf-8")
    save_png(picture_sheet(_sheet(people, rows, reference.gallery)), out / "evaluate.png")
    print(markdown)


def summary(row: Row, reference: Reference) -> dict[str, float | list[float]]:
    """The figures of one row, picture by picture; `distances` are person by person.

    A picture in which the detector finds no face is a miss: it is not rank-1, and its distance is that of strangers'
    photos. `copy` is how much nearer the pictures are to the very photo that was learned than to another photo of the
    person: the photo itself has the most that there can be, 0 is a person and not a photo.
    """
    matches = [[reference.gallery.match(v.features, i) for v in of] for i, of in enumerate(row.scores)]
    every = [match for of in matches for match in of]
    scores = [score for of in row.scores for score in of]
    figures = {
        "rank1": np.mean([match.rank1 for match in every]),
        "distance": np.mean([match.distance for match in every]),
        "distance_to_others": np.mean([match.to_others for match in every]),
        "copy": _copy(row, reference),
        "good_face": good_share(scores),
        **relative_sharpness(scores, reference.learned),
    }
    if row.styles:
        figures["style"] = np.mean(row.styles)
    figures |= {name: np.mean(values) for name, values in row.figures.items()}
    rounded = {name: round(float(value), 3) for name, value in figures.items() if value is not None}
    return rounded | {"distances": [round(float(np.mean([match.distance for match in of])), 4) for of in matches]}


def distribution(name: str, inception: dict[str, np.ndarray], reference: Reference) -> dict[str, float]:
    """How the first pictures of a row differ as a set from other photos of as many people (FID, KID × 1000), and from
    pictures without a LiDB. One picture has no spread: nothing then."""
    features = inception[name]
    if len(features) < 2:
        return {}
    figures = {"fid": fid(features, reference.inception), "kid": 1000 * kid(features, reference.inception)}
    if NOTHING_LEARNED in inception:
        figures["fid_to_none"] = fid(features, inception[NOTHING_LEARNED])
    return {key: round(value, 2) for key, value in figures.items()}


def against(row: dict, first: dict) -> str:
    """How much further away than in the row `first` the same people are: the mean over them ± its standard error."""
    further = np.subtract(row["distances"], first["distances"])
    return f"{further.mean():+.3f} ± {standard_error(further):.3f}"


def standard_error(of: np.ndarray) -> float:
    """That of the mean of `of` [N]; no number for a single one."""
    return float(np.std(of, ddof=1) / np.sqrt(len(of))) if len(of) > 1 else float("nan")


def _copy(row: Row, reference: Reference) -> float | None:
    nearer = [
        reference.gallery.match(v.features, i).distance - np.linalg.norm(v.features - photo.features)
        for i, (of, photo) in enumerate(zip(row.scores, reference.learned, strict=True))
        for v in of
        if v.features is not None and photo.features is not None
    ]
    return float(np.mean(nearer)) if nearer else None


def _sheet(people: list[Person], rows: list[Row], gallery: Gallery) -> list[tuple[str, list[Cell]]]:
    """The photos, then each row's pictures with what the recognizer says of them."""
    shown = people[: min(SHOWN, len(rows[0].pictures))]
    sheet: list[tuple[str, list[Cell]]] = [
        ("The photo", [("", person.crop) for person in shown]),
        ("Another photo of the same person", [("", person.others[0]) for person in shown]),
    ]
    for row in rows[1:]:
        labels = [_label(row.scores[i][0], i, gallery) for i in range(len(shown))]
        sheet.append((row.name, list(zip(labels, row.pictures, strict=False))))
    return sheet


def _label(score: Score, person: int, gallery: Gallery) -> str:
    if score.features is None:
        return "no face"
    match = gallery.match(score.features, person)
    return f"{match.distance:.2f}{', rank-1' if match.rank1 else ''}{'' if score.good else ', not good'}"


def _markdown(table: dict[str, dict], reference: Reference) -> list[str]:
    spread = max(standard_error(np.array(row["distances"])) for row in table.values())
    learned, people = len(reference.learned), reference.gallery.people
    columns = [column for column in COLUMNS if any(column[0] in row for row in table.values())]
    lines = [
        f"{learned} people, to be found among {len(people)} ({sum(map(len, people))} other photos). Two photos of "
        f"different people: distance {reference.gallery.strangers:.3f}. Standard error of a distance: at most "
        f"{spread:.3f}. FID and KID of {learned} pictures: fewer have a larger FID, compare equal numbers only.",
        "",
        f"| | {' | '.join(heading for _, heading, _ in columns)} |", "|---" * (len(columns) + 1) + "|",
    ]  # fmt: skip
    for name, row in table.items():
        cells = [written(row[key]) if key in row else "" for key, _, written in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
