"""Malformed inputs for every reader, guided by coverage: atheris watches which branches of ours, of PyYAML's and of
Pillow's Python code an input reaches, and goes on from those that reach new ones.

Linux; atheris comes with the extra "fuzz". Each reader runs in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

WATCHED = ["hyperdreambooth_ext", "yaml", "json", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.WebPImagePlugin"]
LONGEST = 65_536


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="run.py robustness guided", description=__doc__)
    parser.add_argument("--inputs", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.alone:
        _alone(args.reader, args.inputs, args.seed)
    return _all(args)


def _all(args: argparse.Namespace) -> int:
    from tests.robustness.readers import READERS

    started, totals, defects = time.monotonic(), {}, 0
    for name, reader in READERS.items():
        if args.reader not in (None, name):
            continue
        inputs = args.inputs if args.reader else round(args.inputs * reader.share)
        command = [sys.executable, "-m", "tests.robustness", "guided", "--alone", "--reader", name]
        command += ["--inputs", str(inputs), "--seed", str(args.seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            totals[name] = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            defects += 1
            totals[name] = {"defect": (done.stderr or done.stdout)[-3000:]}
        print(f"{name}: {totals[name]}, {time.monotonic() - started:.0f} s", flush=True)
    total = sum(counts.get("taken", 0) + counts.get("refused", 0) for counts in totals.values())
    summary = {"inputs": total, "defects": defects, "readers": totals, "seconds": round(time.monotonic() - started)}
    print(json.dumps(summary))
    return 1 if defects else 0


def _alone(name: str, inputs: int, seed: int) -> None:
    """Fuzz one reader and end the process, as libFuzzer does: with 0, or after a defect with its report."""
    import os

    import atheris

    with atheris.instrument_imports(include=WATCHED, enable_loader_override=False):
        from tests.robustness.damage import damaged
        from tests.robustness.guard import tried
        from tests.robustness.readers import READERS

    reader, counts = READERS[name], Counter()
    whole = reader.specimens()
    folder = Path(tempfile.mkdtemp(prefix="guided-"))
    path = folder / "read" / "fuzzed.safetensors"
    path.parent.mkdir()
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(whole):
        (corpus / f"{number}").write_bytes(content)

    def once(content: bytes) -> None:
        counts[tried(reader, content, path)] += 1
        if sum(counts.values()) >= inputs:
            print(json.dumps(dict(counts)), flush=True)
            os._exit(0)

    def mutated(content: bytes, longest: int, number: int) -> bytes:
        random = Random(number)
        if random.random() < 0.3:
            return atheris.Mutate(content, longest)
        return damaged(content, random, whole)[:longest]

    longest = max(LONGEST, 2 * max(map(len, whole)))
    options = [f"-seed={seed}", f"-max_len={longest}", "-rss_limit_mb=8000", "-timeout=60"]
    options.append(f"-artifact_prefix={folder}/")
    atheris.Setup([sys.argv[0], *options, str(corpus)], once, custom_mutator=mutated)
    atheris.Fuzz()
