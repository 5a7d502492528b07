"""Measure likeness on people that nothing was trained on, with a recognizer that nothing was trained with.

    python run.py evaluate OUT_DIR [--first 20] [--rows none,hypernetwork,…]
    python run.py evaluate OUT_DIR --people openpeople

A LiDB is learned from one photo of each person; pictures of "a sks face" made with it are compared with another photo
of everybody (dlib): rank-1 is the share of pictures whose nearest photo shows the right person, the distance is dlib's,
smaller is more alike. Style is the share of styled pictures, at multiplier 0.8, in which a classifier of its own sees
the style that was asked for. Seconds are those of learning, with the model loaded.

What is done is kept in OUT_DIR, person by person: a run that is stopped goes on where it was. Writes evaluate.json,
evaluate.md and evaluate.png there. `--processes 2` shares the people out, one thread each.
"""

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image

from hyperdreambooth_ext.cli.generate import Sampling, sample, to_picture
from hyperdreambooth_ext.cli.models import CHECKPOINT, MODELS, fitting_hypernetwork
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.lidb.injection import Applied
from hyperdreambooth_ext.lidb.weights import LiDB
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.personalize.personalize import Request, personalize, save
from hyperdreambooth_ext.personalize.starts import Start

from .machine import end_with_parent
from .people import SYNTHETIC, Person, openpeople, synthetic
from .recognizer import Recognizer
from .report import SHOWN, Row, write_report
from .styles import CLASSIFIER, STYLES, StyleClassifier, load_classifier

ROWS = ("none", "hypernetwork", *(f"{start}+{FinetuneOptions.steps}" for start in ("zero", "gradient", "hypernetwork")))
STYLE_MULTIPLIER = 0.8
STYLES_PER_PERSON = 2


@dataclass(frozen=True)
class Tools:
    """What makes the pictures and what judges them."""

    host: DiffusersHost
    hypernetwork: Hypernetwork | None
    recognizer: Recognizer
    classifier: StyleClassifier


def main() -> None:
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.processes > 1:
        # Fresh processes: forked ones would inherit torch's threads in an unusable state.
        with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn"), end_with_parent) as pool:
            for done in [pool.submit(measure_part, args, part) for part in range(args.processes)]:
                done.result()
    tools, everybody = tools_and_people(args)
    if args.processes == 1:
        measure(tools, everybody, args, 0)
    people, recognizer = everybody[: args.first], tools.recognizer
    coded = [through_autoencoder(tools.host, person.crop) for person in people]
    rows = [
        fixed_row("the photo itself", [person.crop for person in people], recognizer),
        fixed_row("the photo through the autoencoder", coded, recognizer),
        *[read_row(name, people, args.out) for name in args.rows.split(",")],
    ]
    write_report(args.out, everybody, rows, recognizer, vars(args))


def tools_and_people(args: argparse.Namespace) -> tuple[Tools, list[Person]]:
    """What measures, and the people to be told apart, of whom the first are learned."""
    host = DiffusersHost(args.checkpoint)
    hypernetwork, _ = fitting_hypernetwork(host, args.hypernetworks)
    size = host.default_size
    everybody = openpeople(size) if args.people == "openpeople" else synthetic(args.folder, args.identities, size)
    return Tools(host, hypernetwork, Recognizer(), load_classifier(args.style_classifier)), everybody


def measure_part(args: argparse.Namespace, part: int) -> None:
    """`measure` in a process of its own, on one thread."""
    torch.set_num_threads(1)
    measure(*tools_and_people(args), args, part)


def measure(tools: Tools, everybody: list[Person], args: argparse.Namespace, part: int) -> None:
    """Learn and draw every `args.processes`-th person, from number `part` on."""
    people = everybody[: args.first]
    # Person by person through all rows: a run that is cut short has measured its people in every row.
    for number in range(part, len(people), args.processes):
        for name in args.rows.split(","):
            evaluate_person(name, number, people[number], tools, args)
        print(f"{number + 1} of {len(people)} people", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--people", choices=("synthetic", "openpeople"), default="synthetic")
    parser.add_argument("--folder", type=Path, default=SYNTHETIC, help="photos of the synthetic people")
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--first", type=int, help="learn only the first so many, and find them among all")
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated: none, or START, or START+STEPS")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--hypernetworks", type=Path, default=MODELS, help="folder of the hypernetwork")
    parser.add_argument("--style-classifier", type=Path, default=CLASSIFIER, help="what benchmarks.styles wrote")
    parser.add_argument("--processes", type=int, default=1, help="so many people at once")
    parser.add_argument("--seeds", type=int, default=1, help="pictures per person and row")
    parser.add_argument("--lr", type=float, default=FinetuneOptions().lr)
    parser.add_argument("--rank", type=int, default=FinetuneOptions().rank)
    prior = "prior-preservation samples an iteration (0: none)"
    parser.add_argument("--prior-batch", type=int, default=FinetuneOptions().prior_batch, help=prior)
    weight = "how much those samples count"
    parser.add_argument("--prior-weight", type=float, default=FinetuneOptions().prior_weight, help=weight)
    unprompted = "the share of those samples that have no prompt"
    parser.add_argument("--prior-unprompted", type=float, default=FinetuneOptions().prior_unprompted, help=unprompted)
    likeness = "how much the hypernetwork's recognizers count (default: 0.1 from its start, 0 from others)"
    parser.add_argument("--identity-weight", type=float, help=likeness)
    parser.add_argument("--batch", type=int, default=FinetuneOptions().batch, help="noises an iteration sees")
    parser.add_argument("--text", action="store_true", help="finetune the text encoder's layers too")
    parser.add_argument("--multiplier", type=float, default=1.0)
    return parser.parse_args()


def fixed_row(name: str, pictures: list[np.ndarray], recognizer: Recognizer) -> Row:
    """A row of pictures that nothing was learned for."""
    return Row(name, [recognizer.features(picture)[None] for picture in pictures], pictures[:SHOWN])


def through_autoencoder(host: DiffusersHost, crop: np.ndarray) -> np.ndarray:
    """What the checkpoint's latents keep of a picture: no LiDB can be more alike than that."""
    image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1
    return to_picture(host.decode_latents(host.encode_images(image))[0])


def read_row(name: str, people: list[Person], out: Path) -> Row:
    """What OUT_DIR has of one row."""
    results = [json.loads((out / name / f"{person.name}.json").read_text()) for person in people]
    shown = [np.asarray(Image.open(out / name / f"{person.name}.png").convert("RGB")) for person in people[:SHOWN]]
    figures = {
        key: [result[key] for result in results] for key in ("seconds", "bytes") if all(key in r for r in results)
    }
    styles = [right for result in results for right in result["styles"]]
    return Row(name, [np.array(result["features"]) for result in results], shown, figures, styles)


def evaluate_person(row: str, number: int, person: Person, tools: Tools, args: argparse.Namespace) -> None:
    """Learn and draw one person for one row; figures and first picture go to OUT_DIR, if they are not there yet."""
    folder = args.out / row
    if (folder / f"{person.name}.json").exists():
        return
    folder.mkdir(exist_ok=True)
    lidb, result = learn(row, person, tools, args)
    pictures = draw(tools.host, lidb, ["a sks face"] * args.seeds, args.multiplier, first_seed=number)
    Image.fromarray(pictures[0]).save(folder / f"{person.name}.png")
    styles = [STYLES[(number * STYLES_PER_PERSON + j) % len(STYLES)] for j in range(STYLES_PER_PERSON)]
    styled = draw(tools.host, lidb, [f"a sks face, {style}" for style in styles], STYLE_MULTIPLIER, first_seed=number)
    result["styles"] = [tools.classifier.accuracy([p], style) for p, style in zip(styled, styles, strict=True)]
    result["features"] = [[round(float(x), 5) for x in tools.recognizer.features(picture)] for picture in pictures]
    (folder / f"{person.name}.json").write_text(json.dumps(result))


def learn(row: str, person: Person, tools: Tools, args: argparse.Namespace) -> tuple[LiDB | None, dict]:
    """The LiDB of one person for a row such as "zero+80" or "hypernetwork", None for "none"; seconds and bytes."""
    start, _, steps = row.partition("+")
    if start == "none":
        return None, {}
    options = FinetuneOptions(
        steps=int(steps or 1), rank=args.rank, batch=args.batch, lr=args.lr, text=args.text,
        prior_batch=args.prior_batch, prior_weight=args.prior_weight,
        prior_unprompted=args.prior_unprompted, identity_weight=args.identity_weight,
    )  # fmt: skip
    began = time.monotonic()
    request = Request(person.name, cast(Start, start), options, predict_only=not steps)
    learned = personalize(person.photo, request, tools.host, tools.hypernetwork)
    seconds = round(time.monotonic() - began, 2)
    file = save(learned, args.out / row / "lidb", overwrite=True)
    return learned.lidb, {"seconds": seconds, "bytes": file.stat().st_size}


def draw(
    host: DiffusersHost, lidb: LiDB | None, prompts: list[str], multiplier: float, first_seed: int
) -> list[np.ndarray]:
    """One picture a prompt, each from a seed of its own."""
    applied = [] if lidb is None else [Applied(lidb, multiplier, multiplier)]
    return sample(host, prompts, applied, range(first_seed, first_seed + len(prompts)), Sampling())


if __name__ == "__main__":
    main()
