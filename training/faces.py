"""Gather the photos of all people, and draw the styles: what every training here reads.

    python -m training.faces FACES … --out DATA [--styled 0.6]

Each of FACES holds `photos/`, `photos.jsonl` and either `sface.npy` or, from `training.generate` and
`training.attributes`, features in its lines and `attributes.jsonl`. Writes DATA/images.npy, uint8 [N, 256, 256, 3],
DATA/index.jsonl, one line a picture (attributes, style, use), and DATA/sface.npy, float16 [N, 128].
Identities 0 to 199 are for measuring only, and so are the generated ones from HELD_OUT on; nobody is younger than 22.
"""

import argparse
import json
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from .captions import PHOTO
from .looks import looks
from .photos import FIRST_TRAINING_IDENTITY, FRAME
from .styles import STYLES

HELD_OUT = 20000
"""Generated identities from this number on are photos to measure against, and never trained on."""
YOUNGEST = 22
YOUNGEST_GENERATED = 28
"""Of people that `training.attributes` labeled, each by one photo: some whom it calls 25 look like children."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--styled", type=float, default=0.6, help="styled pictures, as a share of the photos")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows, features = gathered(args.faces)
    rng = random.Random(0)
    plan = [(row, PHOTO) for row in rows]
    plan += [(row, rng.choice(sorted(STYLES))) for row in rows if row["use"] == "train" and rng.random() < args.styled]
    order = {row["file"]: i for i, row in enumerate(rows)}
    images = np.lib.format.open_memmap(args.out / "images.npy", "w+", np.uint8, (len(plan), FRAME, FRAME, 3))
    with ProcessPoolExecutor() as pool, open(args.out / "index.jsonl", "w", encoding="utf-8") as lines:
        for i, (row, image) in enumerate(pool.map(_picture, plan, chunksize=64)):
            images[i] = image
            lines.write(json.dumps(row) + "\n")
    images.flush()
    np.save(args.out / "sface.npy", features[[order[row["file"]] for row, _ in plan]].astype(np.float16))
    print(f"{len(plan)} pictures of {len({row['identity'] for row in rows})} people in {args.out}")


def gathered(folders: list[Path]) -> tuple[list[dict], np.ndarray]:
    """A line for each photo, with its file, its use and the words for its person's looks, and SFace's features.

    The words are found on the first folder's people: those of further ones change no word that was learned before.
    """
    rows, features, first = [], [], 0
    for folder in folders:
        known = np.load(folder / "sface.npy").astype(np.float32) if (folder / "sface.npy").exists() else None
        said = {line["photo"]: line for line in _lines(folder / "attributes.jsonl")} if known is None else {}
        for i, line in enumerate(_lines(folder / "photos.jsonl")):
            feature = np.array(line.pop("sface"), np.float32) if known is None else known[i]
            line |= said.get(line["photo"], {}) | {"file": str(folder / "photos" / line["photo"])}
            if line["age"] >= (YOUNGEST_GENERATED if said else YOUNGEST):
                rows.append(line)
                features.append(feature)
        first = first or len(rows)
    for row in rows:
        measured = row["identity"] < FIRST_TRAINING_IDENTITY or row["identity"] >= HELD_OUT
        row["use"] = "measure" if measured else "train"
    matrix = np.stack(features)
    fitted = np.array([r["use"] == "train" and i < first for i, r in enumerate(rows)])
    words = looks(matrix, np.array([r["identity"] for r in rows]), fitted)
    return [{**row, "looks": words[row["identity"]]} for row in rows], matrix


def _lines(file: Path) -> Iterator[dict]:
    return map(json.loads, file.read_text(encoding="utf-8").splitlines())


def _picture(plan: tuple[dict, str]) -> tuple[dict, np.ndarray]:
    row, style = plan
    photo = cv2.cvtColor(cv2.imread(row["file"]), cv2.COLOR_BGR2RGB)
    row = {k: v for k, v in row.items() if k not in ("file", "moved")} | {"style": style} | measured(photo, row)
    return row, photo if style == PHOTO else STYLES[style](photo)


def measured(photo: np.ndarray, row: dict) -> dict:
    """What the pixels say: brightness, the background's color, and how light the skin is."""
    corners = np.concatenate([photo[:40, :24].reshape(-1, 3), photo[:40, -24:].reshape(-1, 3)])
    marks = np.array(row["landmarks"]).reshape(5, 2)
    cheeks = [0.5 * (marks[eye] + marks[mouth]) for eye, mouth in ((0, 3), (1, 4))]
    skin = np.concatenate([_around(photo, center) for center in cheeks])
    color = np.median(skin, 0)[None, None].astype(np.float32) / 255
    lightness, _, yellow = cv2.cvtColor(color, cv2.COLOR_RGB2LAB)[0, 0]
    angle = np.degrees(np.arctan2(lightness - 50, max(yellow, 1e-3)))
    return {
        "brightness": round(float(photo.mean()), 1),
        "background_rgb": [round(float(x)) for x in np.median(corners, 0)],
        "skin_angle": round(float(angle), 1),
    }


def _around(photo: np.ndarray, center: np.ndarray, reach: int = 6) -> np.ndarray:
    x, y = (int(np.clip(value, reach, FRAME - reach)) for value in center)
    return photo[y - reach : y + reach, x - reach : x + reach].reshape(-1, 3)


if __name__ == "__main__":
    main()
