"""Random, learned, PCA and gradient-informed basis at one file size: built alike, then judged on held-out people.

    python -m benchmarks.bases OUT_DIR [--faces 400] [--steps 600] [--first 16] [--kinds random,gradient]

Each basis gets a hypernetwork for the embedded checkpoint out of the same faces, which the checkpoint draws itself, in
the same steps; `benchmarks.evaluate` then learns the first so many people of `benchmarks/people` with it. "Further
away" compares the same people with the first of the bases. What is done is kept: a run that is stopped goes on.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from hyperdreambooth_ext.pretrain.options import BASES, BuildOptions

from .machine import run_all
from .report import against


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--faces", type=int, default=400)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--styled", type=float, default=BuildOptions.styled, help="as `run.py build --styled`")
    parser.add_argument("--recognizer-steps", type=int, default=BuildOptions.recognizer_steps)
    parser.add_argument("--evaluate-every", type=int, default=BuildOptions.evaluate_every)
    parser.add_argument("--first", type=int, default=16, help="people to learn")
    parser.add_argument("--rows", default="hypernetwork,hypernetwork+80", help="of benchmarks.evaluate")
    parser.add_argument("--kinds", default=",".join(BASES))
    parser.add_argument("--basis-people", type=int, default=192)
    parser.add_argument("--target-steps", type=int, default=40, help="of the targets that the PCA looks at")
    parser.add_argument("--processes", type=int, default=1, help="so many kinds at once; best with OMP_NUM_THREADS=1")
    args = parser.parse_args()
    build(args.out / "shared", args, "random", "--until", "faces")
    kinds = args.kinds.split(",")
    reports = {kind: args.out / kind / judged(args) / "evaluate.json" for kind in kinds}
    missing = [kind for kind in kinds if not reports[kind].exists()]
    run_all(lambda kind: build_and_judge(kind, args), missing, args.processes)
    titles = ["basis", "", "rank-1", "distance", "further away", "to other people", "style at 0.8", "KB"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    measured = {kind: json.loads(report.read_text())["rows"] for kind, report in reports.items()}
    for kind, rows in measured.items():
        for row in args.rows.split(","):
            further = "" if kind == kinds[0] else against(rows[row], measured[kinds[0]][row])
            lines.append(f"| {kind} | {row} | {figures(rows[row], further)} |")
    table = "\n".join(lines) + "\n"
    (args.out / "bases.md").write_text(table, encoding="utf-8")
    print(table)


def judged(args: argparse.Namespace) -> str:
    """The folder of a kind's report: other people or rows are another report on the same hypernetwork."""
    return f"evaluate-{args.first}-{args.rows}"


def build_and_judge(kind: str, args: argparse.Namespace) -> None:
    """One kind's hypernetwork out of the shared faces, and the report on what it does for the held-out people."""
    folder = args.out / kind
    for part in ("faces", "prepared"):
        shutil.copytree(args.out / "shared" / part, folder / part, dirs_exist_ok=True)
    build(folder, args, kind)
    _python(
        "benchmarks.evaluate", folder / judged(args), "--first", args.first, "--rows", args.rows,
        "--hypernetworks", folder / "made",
    )  # fmt: skip


def build(folder: Path, args: argparse.Namespace, kind: str, *more: object) -> None:
    """One build of the embedded checkpoint in FOLDER; the file goes to FOLDER/made."""
    targets = ["--target-steps", args.target_steps] if kind == "pca" else []
    _python(
        "hyperdreambooth_ext", "build", folder, "--faces", args.faces, "--steps", args.steps, "--batch", args.batch,
        "--basis", kind, "--basis-people", args.basis_people, "--styled", args.styled,
        "--recognizer-steps", args.recognizer_steps, "--evaluate-every", args.evaluate_every, "--out", folder / "made",
        "--json", *targets, *more,
    )  # fmt: skip


def figures(row: dict, further: str) -> str:
    """One row of the table."""
    return (
        f"{row['rank1']:.2f} | {row['distance']:.3f} | {further} | {row['distance_to_others']:.3f} | "
        f"{row['style']:.2f} | {row['bytes'] / 1000:.0f}"
    )


def _python(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
