"""Compare HyperDreamBooth with DreamBooth, Textual Inversion, LoRA, hypernetworks and aesthetic gradients.

    python run.py compare OUT_DIR [--first 10] [--rows HyperDreamBooth "LoRA, rank 4" …]

Every method learns the same people from the same photo on the same checkpoint, each time in a process of its own. The
learning rates of the others are swept on people that are not measured afterwards (the last ones of the 100), and the
best is taken. What is done is kept in OUT_DIR, so a run that is stopped goes on where it was. Writes compare.md,
compare.json and the pictures frontier.png, time.png, size.png and sheet.png there.

On one core a person takes about an hour and a quarter through all rows and two and three quarters through the sweep:
seventeen hours with the defaults, five with --first 2 --sweep-people 1. `--processes 2` measures two at once.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.shipped import CHECKPOINT, MODELS

from ..machine import CLOCKS, run_all
from .cell import MULTIPLIERS, Cell
from .figures import write_figures
from .rows import ROWS, folder_name
from .shared import make_shared
from .table import Identity, best_rate, write_table

PEOPLE = 100


def main() -> None:
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    make_shared(args.out / "shared.safetensors", args.checkpoint, args.hypernetworks, args.prior, args.picture_steps)
    identity = Identity.read(args.out / "gallery.npz", args.checkpoint, args.gallery)
    if args.sweep_people:
        swept = range(PEOPLE - args.sweep_people, PEOPLE)
        trials = [(row, lr, person) for row in args.rows for lr in ROWS[row].sweep for person in swept]
        run_all(run, [cell(args, row, person, lr, sweep=True) for row, lr, person in trials], args.processes)
    rates = {row: best_rate(identity, args.out / "sweep" / folder_name(row), ROWS[row].sweep) for row in args.rows}
    # Person by person through all rows: a run that is cut short has measured its people in every row.
    for person in range(args.first):
        run_all(run, [cell(args, row, person, rates[row], sweep=False) for row in args.rows], args.processes)
        print(f"{person + 1} of {args.first} people", flush=True)
        results = write_table(identity, args.out, args.rows, rates, person + 1)
    write_figures(args.out, results)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", type=int, default=10, help="how many people are learned")
    parser.add_argument("--sweep-people", type=int, default=2, help="how many each learning rate is tried on; 0: none")
    names = "; ".join(ROWS)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help=names)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--hypernetworks", type=Path, default=MODELS, help="folder of the hypernetwork")
    parser.add_argument("--multipliers", type=float, nargs="+", default=list(MULTIPLIERS), help="with 0.8 and 1")
    parser.add_argument("--picture-steps", type=int, default=25, help="sampling steps of every picture")
    parser.add_argument("--gallery", type=int, default=100, help="people that each is to be found among")
    parser.add_argument("--prior", type=int, default=64, help="pictures of anybody for DreamBooth's prior")
    parser.add_argument("--scale", type=float, default=1.0, help="share of each method's steps, to try the command out")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each process")
    parser.add_argument("--processes", type=int, default=1, help="so many at once; best with --clock cpu --threads 1")
    other_work = "cpu: the processor's own time, for a machine with other work on it; needs --threads 1"
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help=other_work)
    args = parser.parse_args(arguments)
    if not {0.8, 1.0} <= set(args.multipliers):
        parser.error("--multipliers needs 0.8 and 1, which the table is made of")
    if args.clock == "cpu" and args.threads != 1:
        parser.error("--clock cpu adds up the time of all threads: say --threads 1 with it")
    return args


def cell(args: argparse.Namespace, row: str, person: int, lr: float | None, sweep: bool) -> tuple[Cell, int]:
    """What one process is to do, and how many threads it gets."""
    out = args.out / "sweep" / folder_name(row) / str(lr) if sweep else args.out / "rows" / folder_name(row)
    return Cell(
        row, person, lr, str(out.resolve()), str((args.out / "shared.safetensors").resolve()),
        str(args.checkpoint.resolve()), str(args.hypernetworks.resolve()), args.scale, args.picture_steps,
        (0.8, 1.0) if sweep else tuple(args.multipliers), curve=not sweep, clock=args.clock,
    ), args.threads  # fmt: skip


def run(job: tuple[Cell, int]) -> None:
    """Measure a cell unless OUT_DIR has it."""
    todo, threads = job
    out = Path(todo.out)
    out.mkdir(parents=True, exist_ok=True)
    if (out / f"{todo.person}.result.json").exists():
        return
    file = out / f"{todo.person}.json"
    file.write_text(json.dumps(asdict(todo)))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-m", "benchmarks.compare.cell", str(file)], check=True, env=environment)
    rate = "" if todo.lr is None else f", learning rate {todo.lr:g}"
    print(f"{todo.row}, person {todo.person}{rate}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
