"""Train the embedded checkpoint's hypernetwork in several ways, each for the same few steps, and compare likeness.

    python -m training.ablation DATA_DIR FACES_DIR CHECKPOINT_RUN ENCODER HYPER RECOGNISER OUT_DIR

HYPER holds features and targets (`training.hypernetwork`). Every row changes one thing of the first. The figures are
those of `benchmarks.evaluate` for the hypernetwork alone; "further away" compares the same people in a row and in the
first. Rows that are done are kept: a stopped run goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import run_all
from benchmarks.report import against
from hyperdreambooth_ext.shipped import CHECKPOINT

WARM_UP = ["--target-steps", "100"]
IDENTITY = ["--identity-weight", "0.1"]
ROWS: dict[str, list[str]] = {
    "diffusion and identity loss": IDENTITY,
    "diffusion loss alone": [],
    "targets first (100 of the steps)": [*IDENTITY, *WARM_UP],
    "k = 1": [*IDENTITY, "--iterations", "1"],
    "k = 4": [*IDENTITY, "--iterations", "4"],
    "masked loss": [*IDENTITY, "--masked"],
    "timesteps 300 to 1000": [*IDENTITY, "--timesteps", "0.3", "1"],
    "timesteps 0 to 700": [*IDENTITY, "--timesteps", "0", "0.7"],
    "500 identities": [*IDENTITY, "--identities", "500"],
    "2,000 identities": [*IDENTITY, "--identities", "2000"],
    "encoder without the recogniser's lesson": [*IDENTITY, "--no-identity-vector"],
    "full instead of random basis": [*IDENTITY, "--full-basis"],
    "nothing else, from another seed": [*IDENTITY, "--seed", "1"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "faces", "checkpoint_run", "encoder", "hyper", "recogniser", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--first", type=int, default=50, help="people to measure on")
    parser.add_argument("--processes", type=int, default=1, help="so many rows at once; best with OMP_NUM_THREADS=1")
    parser.add_argument("--rows", help="comma-separated numbers of rows, from 0 (default: all)")
    args = parser.parse_args()
    names = list(ROWS)
    chosen = [names[int(number)] for number in args.rows.split(",")] if args.rows else names
    folders = {name: args.out / str(names.index(name)) for name in chosen}
    missing = [name for name in chosen if not (folders[name] / "evaluate" / "evaluate.json").exists()]
    run_all(lambda name: run_row(ROWS[name], folders[name], args), missing, args.processes)
    reports = {name: args.out / str(number) / "evaluate" / "evaluate.json" for number, name in enumerate(names)}
    table = "\n".join(_table({name: json.loads(f.read_text()) for name, f in reports.items() if f.exists()})) + "\n"
    (args.out / "ablation.md").write_text(table, encoding="utf-8")
    print(table)


def _table(reports: dict[str, dict]) -> list[str]:
    rows = {name: report["rows"]["hypernetwork"] for name, report in reports.items()}
    first = rows.get(next(iter(ROWS)))
    titles = ["trained with", "rank-1", "distance", "further away", "to other people", "style at 0.8"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, row in rows.items():
        further = against(row, first) if first and row is not first else ""
        figures = f"{row['rank1']:.2f} | {row['distance']:.3f} | {further} | {row['distance_to_others']:.3f}"
        lines.append(f"| {name} | {figures} | {row['style']:.2f} |")
    return lines


def run_row(options: list[str], folder: Path, args: argparse.Namespace) -> None:
    """Train, export and evaluate one row in FOLDER."""
    run = folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    for cache in [*args.hyper.glob("*.npy"), args.hyper / "head.safetensors", *args.hyper.glob("targets-*")]:
        if not (run / cache.name).exists():
            (run / cache.name).symlink_to(cache.resolve())
    taught = "--identity-weight" in options
    teacher = ["--recogniser", str(args.recogniser), "--faces", str(args.faces)] if taught else []
    made = ["--iterations", options[options.index("--iterations") + 1]] if "--iterations" in options else []
    made += [flag for flag in ("--no-identity-vector", "--full-basis") if flag in options]
    size = ["--steps", str(args.steps), "--batch", str(args.batch)]
    _python("training.hypernetwork", "train", args.data, args.checkpoint_run, run, *size, *teacher, *options)
    file = folder / "hypernetwork.safetensors"
    _python("training.hypernetwork", "export", CHECKPOINT, args.encoder, run, file, *made)
    people = ["--first", args.first, "--rows", "hypernetwork"]
    _python("benchmarks.evaluate", folder / "evaluate", *people, "--hypernetworks", folder)


def _python(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
