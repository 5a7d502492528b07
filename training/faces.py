"""Cut the synthetic photos to aligned faces and draw the styles: what every training here reads.

    python -m training.faces FACES_DIR OUT_DIR [--size 128] [--styles-per-photo 2]

FACES_DIR holds `photos.jsonl`, `photos/` and `sface.npy`. Writes OUT_DIR/images.npy, uint8 [rows, size, size, 3], and
OUT_DIR/index.jsonl, one line a row: the photo's attributes, its style, and whether it is mirrored.
Identities below 200 are for measuring only: they get no styles and the trainings leave them out.
"""

import argparse
import json
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from hyperdreambooth_ext.images.face import align_matrix, warp

from .captions import PHOTO
from .looks import looks
from .styles import STYLES

FIRST_TRAINING_IDENTITY = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--styles-per-photo", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = with_looks(args.faces)
    prepare = partial(_variants, photos=args.faces / "photos", size=args.size, styles=args.styles_per_photo)
    index, images = [], []
    with ProcessPoolExecutor() as pool:
        for variants in pool.map(prepare, rows, chunksize=64):
            for row, image in variants:
                index.append(row)
                images.append(image)
    np.save(args.out / "images.npy", np.stack(images))
    (args.out / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in index))
    print(f"{len(index)} pictures of {args.size} px in {args.out}")


def with_looks(faces: Path) -> list[dict]:
    """The lines of FACES_DIR/photos.jsonl, each with the words for its person's looks."""
    rows = [json.loads(line) for line in (faces / "photos.jsonl").read_text().splitlines()]
    identities = np.array([row["identity"] for row in rows])
    words = looks(np.load(faces / "sface.npy"), identities, identities >= FIRST_TRAINING_IDENTITY)
    return [{**row, "looks": words[row["identity"]]} for row in rows]


def _variants(row: dict, photos: Path, size: int, styles: int) -> list[tuple[dict, np.ndarray]]:
    photo = cv2.cvtColor(cv2.imread(str(photos / row["photo"])), cv2.COLOR_BGR2RGB)
    landmarks = np.array(row["landmarks"], dtype=np.float64).reshape(5, 2)
    row = {key: value for key, value in row.items() if key not in ("box", "landmarks")}
    large = warp(photo, align_matrix(landmarks, 2 * size), 2 * size)
    image = _halve(large)
    row["brightness"] = round(float(image.mean()), 1)
    variants = [({**row, "style": PHOTO, "mirrored": 0}, image)]
    if row["identity"] < FIRST_TRAINING_IDENTITY:
        return variants
    variants.append((_mirror({**row, "style": PHOTO}), image[:, ::-1]))
    rng = random.Random(row["photo"])
    for style in rng.sample(sorted(STYLES), styles):
        styled = _halve(STYLES[style](large))
        if rng.random() < 0.5:
            variants.append((_mirror({**row, "style": style}), styled[:, ::-1]))
        else:
            variants.append(({**row, "style": style, "mirrored": 0}, styled))
    return variants


def _halve(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)


def _mirror(row: dict) -> dict:
    return {**row, "mirrored": 1, "yaw": -row["yaw"]}


if __name__ == "__main__":
    main()
