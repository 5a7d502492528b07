"""One method on one person, in a process of its own: `python -m benchmarks.compare.cell FILE.json`.

FILE.json holds a Cell; what was measured is written beside it when all of it is there.
"""

import json
import math
import sys
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from hyperdreambooth_ext.files import write_atomically
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.file import fitting_hypernetwork
from hyperdreambooth_ext.jobs.forecast import peak_megabytes
from hyperdreambooth_ext.sampling.sampler import Sampling, sample_many

from ..judges import VERSION
from ..machine import CLOCKS
from ..people import SYNTHETIC, synthetic_person
from ..recognizer import Recognizer
from ..styles import CLASSIFIER, STYLES, load_classifier
from .method import PROMPT, Learned, Task, Watch
from .rows import ROWS

MULTIPLIERS = (0.0, 0.4, 0.8, 1.0, 1.2)
WARM_UP_STEPS = 3
PICTURES, STYLED = 2, 5


@dataclass(frozen=True)
class Cell:
    """What to measure. `multipliers` and `curve` (snapshots on the way) may be left short for a sweep."""

    row: str
    person: int
    lr: float | None
    out: str
    shared: str
    """What `shared.py` made: prior pictures' latents and the image head."""
    checkpoint: str
    hypernetworks: str
    scale: float = 1.0
    """The share of each method's steps that is taken; 1 but for trying the comparison out."""
    picture_steps: int = 25
    multipliers: tuple[float, ...] = MULTIPLIERS
    curve: bool = True
    clock: str = "wall"


def main() -> None:
    path = Path(sys.argv[1])
    cell = Cell(**json.loads(path.read_text()))
    result = {"version": VERSION, "cell": asdict(cell), **measure(cell)}
    write_atomically(path.with_suffix(".result.json"), json.dumps(result).encode())
    path.unlink()


def measure(cell: Cell) -> dict:
    """Learn, then sample with what was learned on a checkpoint that is as its file says."""
    method = ROWS[cell.row]
    steps = max(1, round(method.steps * cell.scale)) if method.steps else 0
    task = _task(cell)
    loaded = peak_megabytes()
    # The first steps fetch libraries and memory: they are not timed, and the peak is theirs, before any snapshot.
    method.learn(task, cell.lr, min(WARM_UP_STEPS, steps), Watch(set()))
    peak = peak_megabytes()
    task = _task(cell)
    watch = Watch(_snapshot_steps(steps) if cell.curve else set(), CLOCKS[cell.clock])
    learned = method.learn(task, cell.lr, steps, watch)
    seconds = watch.seconds()
    with TemporaryDirectory() as folder:
        size = learned.save(Path(folder)).stat().st_size
    del task
    judge = Judge(cell)
    return {
        "steps": steps, "seconds": seconds, "loaded_megabytes": loaded, "peak_megabytes": peak, "bytes": size,
        "curve": [
            {"step": step, "seconds": at, "features": judge.features(judge.plain(snapshot, 1.0))}
            for step, at, snapshot in watch.snapshots
        ],
        "at": {str(multiplier): judge.at(learned, multiplier) for multiplier in cell.multipliers},
    }  # fmt: skip


def _task(cell: Cell) -> Task:
    host = DiffusersHost(cell.checkpoint)
    person = synthetic_person(SYNTHETIC, cell.person, host.default_size)
    hypernetwork = fitting_hypernetwork(host, Path(cell.hypernetworks))
    shared = load_file(cell.shared)
    return Task(host, hypernetwork, person, shared["prior"], shared["image_head"])


def _snapshot_steps(steps: int) -> set[int]:
    """Six on the way, each with half the steps of the next; the last step itself is sampled anyway."""
    return {math.ceil(steps / 2**power) for power in range(6)}


class Judge:
    """Draws with what was learned, and measures the pictures. The same seeds for every method."""

    def __init__(self, cell: Cell) -> None:
        self._cell, self._host = cell, DiffusersHost(cell.checkpoint)
        self._recognizer, self._classifier = Recognizer(), load_classifier(CLASSIFIER)
        self._first_seed = cell.person * PICTURES

    def features(self, pictures: list[np.ndarray]) -> list[list[float] | None]:
        """None for a picture without a face."""
        seen = [self._recognizer.features(picture) for picture in pictures]
        return [None if one is None else [round(float(x), 5) for x in one] for one in seen]

    def plain(self, learned: Learned, multiplier: float) -> list[np.ndarray]:
        return self._draw(learned, multiplier, [PROMPT] * PICTURES)

    def at(self, learned: Learned, multiplier: float) -> dict:
        """Identity, styles and diversity at one multiplier; the first pictures go to the sheet."""
        first = self._cell.person * STYLED
        styles = [STYLES[(first + i) % len(STYLES)] for i in range(STYLED)]
        pictures = self._draw(learned, multiplier, [PROMPT] * PICTURES + [f"{PROMPT}, {style}" for style in styles])
        plain, styled = pictures[:PICTURES], pictures[PICTURES:]
        file = Path(self._cell.out) / f"{self._cell.person}_{multiplier}.png"
        Image.fromarray(np.concatenate(pictures, axis=1)).save(file)
        return {
            "features": self.features(plain),
            "styles": [self._classifier.accuracy([p], style) for p, style in zip(styled, styles, strict=True)],
            "diversity": diversity(plain),
            "picture": file.name,
        }

    def _draw(self, learned: Learned, multiplier: float, prompts: list[str]) -> list[np.ndarray]:
        seeds = range(self._first_seed, self._first_seed + len(prompts))
        with learned.applied(self._host, multiplier):
            return sample_many(self._host, prompts, seeds, Sampling(steps=self._cell.picture_steps))


def diversity(pictures: list[np.ndarray]) -> float:
    """How unlike pictures of different seeds are: the mean root-mean-square difference of two, of 1."""
    pairs = [(one / 255 - other / 255) for one, other in combinations(pictures, 2)]
    return float(np.mean([np.sqrt(np.square(pair).mean()) for pair in pairs]))


if __name__ == "__main__":
    main()
