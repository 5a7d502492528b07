"""Malformed inputs for every reader, as many as `--inputs` says, shared out by weight.

Every tenth is made by hypothesis, which shrinks what shows a defect; the others come straight from a seeded generator,
which makes four in the same time.
"""

import argparse
import json
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.robustness.damage import damaged
from tests.robustness.guard import Defect, tried
from tests.robustness.readers import READERS

# Hypothesis remembers all examples of a run: many short ones take less memory.
BATCH = 1000


def fuzzed(name: str, inputs: int, path: Path, first_seed: int = 0) -> Counter:
    """How many of so many inputs were taken and refused. Raises guard.Defect with the smallest input that shows it."""
    reader, counts = READERS[name], Counter()
    whole = reader.specimens()
    for content in whole:
        tried(reader, content, path)

    def once(content: bytes, random: Random) -> None:
        counts[tried(reader, damaged(content, random, whole), path)] += 1

    thought_out = -(-inputs // 10)
    for batch in range(0, thought_out, BATCH):
        run = settings(
            max_examples=min(BATCH, thought_out - batch), deadline=None, database=None,
            phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
        )(given(st.sampled_from(whole), st.randoms(use_true_random=False))(once))  # fmt: skip
        seed(first_seed + batch)(run)()
    random = Random(first_seed)
    while sum(counts.values()) < inputs:
        once(random.choice(whole), random)
    return counts


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="run.py robustness fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=READERS)
    args = parser.parse_args(arguments)
    started, defects = time.monotonic(), 0
    totals: dict[str, dict] = {}
    for name, reader in READERS.items():
        if args.reader in (None, name):
            inputs = args.inputs if args.reader else round(args.inputs * reader.share)
            # Each in a folder of its own: a reader may list it.
            with tempfile.TemporaryDirectory() as folder:
                try:
                    totals[name] = dict(fuzzed(name, inputs, Path(folder) / "fuzzed.safetensors", args.seed))
                except Defect as defect:
                    traceback.print_exc()
                    totals[name], defects = {"defect": str(defect)}, defects + 1
            print(f"{name}: {totals[name]}, {time.monotonic() - started:.0f} s", flush=True)
    total = sum(counts.get("taken", 0) + counts.get("refused", 0) for counts in totals.values())
    summary = {"inputs": total, "defects": defects, "readers": totals, "seconds": round(time.monotonic() - started)}
    print(json.dumps(summary))
    return 1 if defects else 0
