"""Measure likeness on people that nothing was trained on, with a recogniser that nothing was trained with.

    python -m benchmarks.evaluate FACES_DIR OUT_DIR [--identities 100] [--rows hypernetwork,hypernetwork+40]

FACES_DIR holds photos.jsonl and photos/. A LiDB is learned from photo 0 of each person; pictures of "a sks face" made
with it are compared with photo 1 of all people: rank-1 is the share that is nearest to the right one, the distance is
dlib's (smaller is more alike). Seconds are those of learning, with the model already loaded. Style, measured when
--style-classifier is given, is the share of styled pictures at multiplier 0.8 that are seen as the style asked for.
Writes OUT_DIR/evaluate.json, evaluate.md and evaluate.png.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.lidb.injection import Applied
from hyperdreambooth_ext.lidb.weights import LiDB
from hyperdreambooth_ext.personalize.face import crop_face, find_face
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.personalize.personalize import Request, personalize
from hyperdreambooth_ext.personalize.photo import load_photo
from hyperdreambooth_ext.standalone.generate import Sampling, sample, to_picture
from hyperdreambooth_ext.standalone.models import CHECKPOINT, MODELS, fitting_hypernetwork
from hyperdreambooth_ext.standalone.sheet import picture_sheet, save_png

from .recogniser import Recogniser, mean_distance, rank1
from .styles import STYLES, load_classifier

ROWS = ("none", "hypernetwork", "zero+40", "gradient+40", "hypernetwork+40")
SHOWN = 6
STYLE_MULTIPLIER = 0.8


@dataclass
class Person:
    photo: np.ndarray
    crop: np.ndarray
    other: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--seeds", type=int, default=2, help="pictures per person and row")
    parser.add_argument("--lr", type=float, default=FinetuneOptions().lr)
    parser.add_argument("--rank", type=int, default=FinetuneOptions().rank)
    parser.add_argument("--batch", type=int, default=FinetuneOptions().batch)
    parser.add_argument("--text", action="store_true", help="finetune the text encoder's layers too")
    parser.add_argument("--multiplier", type=float, default=1.0)
    parser.add_argument("--hypernetworks", type=Path, default=MODELS, help="folder of the hypernetwork")
    parser.add_argument("--style-classifier", type=Path, help="what benchmarks.styles wrote: measures style accuracy")
    args = parser.parse_args()
    host, recogniser = DiffusersHost(args.checkpoint), Recogniser()
    people = load_people(args.faces, args.identities, host.default_size)
    gallery = np.stack([recogniser.features(person.other) for person in people])
    table = {"the photo itself": _likeness([[p.crop] for p in people], recogniser, gallery)}
    table["… through the autoencoder"] = _likeness(
        [[through_autoencoder(host, p.crop)] for p in people], recogniser, gallery
    )
    sheet = [("The photo", [("", person.crop) for person in people[:SHOWN]])]
    sheet.append(("Another photo of the same person", [("", person.other) for person in people[:SHOWN]]))
    for row in args.rows.split(","):
        figures, pictures = evaluate_row(row, people, host, args)
        table[row] = {**_likeness(pictures, recogniser, gallery), **figures}
        sheet.append((row, [("", made[0]) for made in pictures[:SHOWN]]))
        print(row, table[row], flush=True)
    write(args.out, table, sheet, args)


def load_people(faces: Path, count: int, size: int) -> list[Person]:
    """The first `count` people: photo 0, and the aligned crops of photos 0 and 1."""
    people = []
    for i in range(count):
        first, other = (load_photo(faces / "photos" / f"{i:05d}_{k}.jpg") for k in (0, 1))
        people.append(Person(first, crop_face(first, find_face(first), size), crop_face(other, find_face(other), size)))
    return people


def through_autoencoder(host: DiffusersHost, crop: np.ndarray) -> np.ndarray:
    """What the checkpoint's latents keep of a picture: no LiDB can be more alike than that."""
    image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1
    return to_picture(host.decode_latents(host.encode_images(image))[0])


def learn(row: str, person: Person, host: DiffusersHost, hypernetwork: Hypernetwork | None, args) -> LiDB | None:
    """The LiDB of one person for a row such as "zero+40" or "hypernetwork"; None for the row "none"."""
    start, _, steps = row.partition("+")
    if start == "none":
        return None
    options = FinetuneOptions(steps=int(steps or 1), rank=args.rank, batch=args.batch, lr=args.lr, text=args.text)
    request = Request("x", start, options, predict_only=not steps)
    return personalize(person.photo, request, host, hypernetwork).lidb


def pictures_of(host: DiffusersHost, lidb: LiDB | None, prompts: list[str], multiplier: float) -> list[np.ndarray]:
    """One picture a prompt, from seeds 0, 1, 2 …"""
    applied = [] if lidb is None else [Applied(lidb, multiplier, multiplier)]
    return sample(host, prompts, applied, range(len(prompts)), Sampling())


def evaluate_row(row: str, people: list[Person], host: DiffusersHost, args) -> tuple[dict, list[list[np.ndarray]]]:
    """The figures of one row without likeness, and the pictures that likeness is measured on."""
    hypernetwork, _ = fitting_hypernetwork(host, args.hypernetworks)
    classifier = load_classifier(args.style_classifier) if args.style_classifier else None
    pictures, seconds, right = [], 0.0, []
    for i, person in enumerate(people):
        began = time.monotonic()
        lidb = learn(row, person, host, hypernetwork, args)
        seconds += time.monotonic() - began
        pictures.append(pictures_of(host, lidb, ["a sks face"] * args.seeds, args.multiplier))
        if classifier is not None:
            styles = [STYLES[(i * 3 + j) % len(STYLES)] for j in range(3)]
            styled = pictures_of(host, lidb, [f"a sks face, {style}" for style in styles], STYLE_MULTIPLIER)
            right += [classifier.accuracy([p], style) for p, style in zip(styled, styles, strict=True)]
    figures: dict[str, float] = {} if row == "none" else {"seconds": round(seconds / len(people), 2)}
    if right:
        figures["style"] = round(float(np.mean(right)), 3)
    return figures, pictures


def _likeness(pictures: list[list[np.ndarray]], recogniser: Recogniser, gallery: np.ndarray) -> dict[str, float]:
    features = np.array([[recogniser.features(picture) for picture in made] for made in pictures])
    others = np.linalg.norm(features.mean(1)[:, None] - gallery[None], axis=-1)[~np.eye(len(gallery), dtype=bool)]
    return {
        "rank1": round(float(np.mean([rank1(features[:, i], gallery) for i in range(features.shape[1])])), 3),
        "distance": round(
            float(np.mean([mean_distance(features[:, i], gallery) for i in range(features.shape[1])])), 3
        ),
        "distance_to_others": round(float(others.mean()), 3),
    }


def write(out: Path, table: dict[str, dict], sheet: list, args: argparse.Namespace) -> None:
    """JSON, Markdown and picture sheet."""
    out.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) for key, value in vars(args).items() if key not in ("faces", "out")}
    (out / "evaluate.json").write_text(json.dumps({"settings": settings, "rows": table}, indent=2) + "\n")
    lines = [
        f"{args.identities} people, {args.seeds} pictures each, against another photo of the same person (dlib).", "",
        "| | rank-1 | distance | to other people | seconds |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, row in table.items():
        lines.append(
            f"| {name} | {row['rank1']:.2f} | {row['distance']:.3f} | {row['distance_to_others']:.3f} "
            f"| {row.get('style', '')} | {row.get('seconds', '')} |"
        )
    (out / "evaluate.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    save_png(picture_sheet(sheet), out / "evaluate.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
