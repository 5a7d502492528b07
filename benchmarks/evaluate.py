"""Measure likeness on people that nothing was trained on, with a recognizer that nothing was trained with.

    python run.py evaluate OUT_DIR [--first 20] [--rows none,hypernetwork,…]
    python run.py evaluate OUT_DIR --people openpeople

A LiDB is learned from one photo of each person; pictures of "a sks face" made with it are compared with another photo
of everybody (dlib). One line a way to learn:

rank-1         share of pictures whose nearest photo shows the right person
distance       dlib's, to the other photo: smaller is more alike. A picture in which no face is found is a miss: not
               rank-1, and as far away as photos of different people are from each other
copy           how much nearer to the very photo that was learned than to the other one; 0 copies nothing of it
one good face  share of pictures in which a face detector finds exactly one face, a sure and large one
sharpness      fine detail of the faces, the photos' being 1 (median); `eyes`: around the eyes alone
FID, KID       how far the pictures as a set are from other photos of these people; "to none": from pictures without a
               LiDB. FID is biased: compare equal numbers of pictures
style at 0.8   share of styled pictures, at multiplier 0.8, in which a classifier of its own sees the style asked for
seconds, KB    of learning, with the model loaded, and of the file

What is done is kept in OUT_DIR, person by person: a run that is stopped goes on where it was. Writes evaluate.json,
evaluate.md and evaluate.png there. `--processes 2` shares the people out, one thread each.
"""

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.files import write_atomically
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.file import fitting_hypernetwork
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.images.sheet import save_png
from hyperdreambooth_ext.images.tensors import to_picture
from hyperdreambooth_ext.lidb.injection import Applied
from hyperdreambooth_ext.lidb.weights import LiDB
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.personalize.personalize import Request, personalize, save
from hyperdreambooth_ext.personalize.starts import Start
from hyperdreambooth_ext.sampling.sampler import Sampling, sample_many
from hyperdreambooth_ext.shipped import CHECKPOINT, MODELS

from .judges import VERSION, Judges, Score
from .machine import end_with_parent
from .people import SYNTHETIC, Person, openpeople, synthetic
from .report import NOTHING_LEARNED, Row, write_report
from .styles import CLASSIFIER, STYLES, StyleClassifier, load_classifier

STARTS = ("zero", "gradient", "hypernetwork")
ROWS = (NOTHING_LEARNED, "hypernetwork", *(f"{start}+{FinetuneOptions.steps}" for start in STARTS))
STYLE_MULTIPLIER = 0.8
STYLES_PER_PERSON = 2


@dataclass(frozen=True)
class Tools:
    """What makes the pictures and what judges them."""

    host: DiffusersHost
    hypernetwork: Hypernetwork | None
    judges: Judges
    classifier: StyleClassifier


def main(arguments: list[str] | None = None) -> None:
    """The command; `arguments` None are those of the process. Raises UserError."""
    args = parse_arguments(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.processes > 1:
        # Fresh processes: forked ones would inherit torch's threads in an unusable state.
        with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn"), end_with_parent) as pool:
            for done in [pool.submit(measure_part, args, part) for part in range(args.processes)]:
                done.result()
    tools, everybody = tools_and_people(args)
    if args.processes == 1:
        measure(tools, everybody, args, 0)
    people, judges = everybody[: args.first], tools.judges
    coded = [through_autoencoder(tools.host, person.crop) for person in people]
    rows = [
        fixed_row("the photo itself", [person.crop for person in people], judges),
        fixed_row("the photo through the autoencoder", coded, judges),
        *[read_row(name, people, args.out) for name in args.rows.split(",")],
    ]
    write_report(args.out, everybody, rows, judges, vars(args))


def tools_and_people(args: argparse.Namespace) -> tuple[Tools, list[Person]]:
    """What measures, and the people to be told apart, of whom the first are learned."""
    host = DiffusersHost(args.checkpoint)
    hypernetwork = fitting_hypernetwork(host, args.hypernetworks)
    size = host.default_size
    everybody = openpeople(size) if args.people == "openpeople" else synthetic(args.folder, args.identities, size)
    return Tools(host, hypernetwork, Judges(), load_classifier(args.style_classifier)), everybody


def measure_part(args: argparse.Namespace, part: int) -> None:
    """`measure` in a process of its own, on one thread."""
    torch.set_num_threads(1)
    measure(*tools_and_people(args), args, part)


def measure(tools: Tools, everybody: list[Person], args: argparse.Namespace, part: int) -> None:
    """Learn and sample every `args.processes`-th person, from number `part` on."""
    people = everybody[: args.first]
    # Person by person through all rows: a run that is cut short has measured its people in every row.
    for number in range(part, len(people), args.processes):
        for name in args.rows.split(","):
            evaluate_person(name, number, people[number], tools, args)
        print(f"{number + 1} of {len(people)} people", flush=True)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
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
    parser.add_argument("--lr", type=float, default=None, help="found by a line search")
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
    return parser.parse_args(arguments)


def fixed_row(name: str, pictures: list[np.ndarray], judges: Judges) -> Row:
    """A row of pictures that nothing was learned for."""
    return Row(name, [[judges.score(picture)] for picture in pictures], pictures)


def through_autoencoder(host: DiffusersHost, crop: np.ndarray) -> np.ndarray:
    """What the checkpoint's latents keep of a picture: no LiDB can be more alike than that."""
    image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1
    return to_picture(host.decode_latents(host.encode_images(image))[0])


def read_row(name: str, people: list[Person], out: Path) -> Row:
    """What OUT_DIR has of one row. Raises UserError for results of other judges."""
    results = [read_result(out / name / f"{person.name}.json") for person in people]
    pictures = [np.asarray(Image.open(out / name / f"{person.name}.png").convert("RGB")) for person in people]
    figures = {
        key: [result[key] for result in results] for key in ("seconds", "bytes") if all(key in r for r in results)
    }
    styles = [right for result in results for right in result["styles"]]
    scores = [[Score.from_json(stored) for stored in result["pictures"]] for result in results]
    return Row(name, scores, pictures, figures, styles)


def read_result(file: Path) -> dict:
    """One person's figures. Raises UserError when other judges than today's made them."""
    result = json.loads(file.read_text())
    if result.get("version") != VERSION:
        raise UserError(f"{file} was judged in another way than today: give an empty folder.")
    return result


def evaluate_person(row: str, number: int, person: Person, tools: Tools, args: argparse.Namespace) -> None:
    """Learn and sample one person for one row; figures and pictures go to OUT_DIR, if they are not there yet."""
    folder, file = args.out / row, args.out / row / f"{person.name}.json"
    if file.exists():
        read_result(file)
        return
    folder.mkdir(exist_ok=True)
    lidb, result = learn(row, person, tools, args)
    pictures = pictures_of(tools.host, lidb, ["a sks face"] * args.seeds, args.multiplier, first_seed=number)
    for seed, picture in enumerate(pictures):
        save_png(picture, folder / f"{person.name}{f'-{seed}' if seed else ''}.png")
    styles = [STYLES[(number * STYLES_PER_PERSON + j) % len(STYLES)] for j in range(STYLES_PER_PERSON)]
    prompts = [f"a sks face, {style}" for style in styles]
    styled = pictures_of(tools.host, lidb, prompts, STYLE_MULTIPLIER, first_seed=number)
    result["styles"] = [tools.classifier.accuracy([p], style) for p, style in zip(styled, styles, strict=True)]
    result["pictures"] = [tools.judges.score(picture).as_json() for picture in pictures]
    write_atomically(file, json.dumps({"version": VERSION, **result}).encode())


def learn(row: str, person: Person, tools: Tools, args: argparse.Namespace) -> tuple[LiDB | None, dict]:
    """The LiDB of one person for a row such as "zero+80" or "hypernetwork", None for "none"; seconds and bytes."""
    start, _, steps = row.partition("+")
    if start == NOTHING_LEARNED:
        return None, {}
    options = FinetuneOptions(
        steps=int(steps or 1), rank=args.rank, batch=args.batch, lr=args.lr, text=args.text,
        prior_batch=args.prior_batch, prior_weight=args.prior_weight,
        prior_unprompted=args.prior_unprompted, identity_weight=args.identity_weight,
    )  # fmt: skip
    began = time.monotonic()
    request = Request(person.name, cast(Start, start), options, predict_only=not steps)
    learned = personalize(Photo(person.photo), request, tools.host, tools.hypernetwork)
    seconds = round(time.monotonic() - began, 2)
    file = save(learned, args.out / row / "lidb", overwrite=True)
    return learned.lidb, {"seconds": seconds, "bytes": file.stat().st_size}


def pictures_of(
    host: DiffusersHost, lidb: LiDB | None, prompts: list[str], multiplier: float, first_seed: int
) -> list[np.ndarray]:
    """One picture a prompt, each from a seed of its own."""
    applied = [] if lidb is None else [Applied(lidb, multiplier, multiplier)]
    return sample_many(host, prompts, range(first_seed, first_seed + len(prompts)), Sampling(), applied)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
