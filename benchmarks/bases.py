"""Random, learned, PCA and gradient-informed basis at one file size: built alike, then judged on held-out people.

    python -m benchmarks.bases OUT_DIR [--faces 400] [--steps 600] [--first 16] [--kinds random,gradient]

Each basis gets a hypernetwork for the embedded checkpoint out of the same faces, which the checkpoint draws itself, in
the same steps; `benchmarks.evaluate` then learns the first so many people of `benchmarks/people` with it. What is done
is kept: a run that is stopped goes on.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from hyperdreambooth_ext.build.options import BASES

ROWS = ("hypernetwork", "hypernetwork+40")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--faces", type=int, default=400)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--first", type=int, default=16, help="people to learn")
    parser.add_argument("--kinds", default=",".join(BASES))
    parser.add_argument("--basis-people", type=int, default=192)
    parser.add_argument("--target-steps", type=int, default=40, help="of the targets that the PCA looks at")
    args = parser.parse_args()
    shared = args.out / "shared"
    build(shared, args, "random", "--until", "faces")
    lines = ["| basis | | rank-1 | distance | to other people | style at 0.8 | KB |", "|---|---|---|---|---|---|---|"]
    for kind in args.kinds.split(","):
        folder = args.out / kind
        for part in ("faces", "prepared"):
            if not (folder / part).exists():
                shutil.copytree(shared / part, folder / part)
        report = folder / "evaluate" / "evaluate.json"
        if not report.exists():
            build(folder, args, kind)
            _python(
                "benchmarks.evaluate", folder / "evaluate", "--first", args.first, "--rows", ",".join(ROWS),
                "--hypernetworks", folder / "made",
            )  # fmt: skip
        for row in ROWS:
            lines.append(f"| {kind} | {row} | {figures(json.loads(report.read_text())['rows'][row])} |")
    table = "\n".join(lines) + "\n"
    (args.out / "bases.md").write_text(table, encoding="utf-8")
    print(table)


def build(folder: Path, args: argparse.Namespace, kind: str, *more: object) -> None:
    """One build of the embedded checkpoint in FOLDER; the file goes to FOLDER/made."""
    targets = ["--target-steps", args.target_steps] if kind == "pca" else []
    _python(
        "hyperdreambooth_ext", "build", folder, "--faces", args.faces, "--steps", args.steps, "--batch", args.batch,
        "--basis", kind, "--basis-people", args.basis_people, "--out", folder / "made", "--json", *targets, *more,
    )  # fmt: skip


def figures(row: dict) -> str:
    """One row of the table."""
    style = f"{row['style']:.2f}" if "style" in row else ""
    return (
        f"{row['rank1']:.2f} | {row['distance']:.3f} | {row['distance_to_others']:.3f} | {style} | "
        f"{row['bytes'] / 1000:.0f}"
    )


def _python(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
