"""The demo's picture sheet: the same noise, from the bare checkpoint to the person in many styles."""

from pathlib import Path

import numpy as np

from ..hosts.protocol import Host
from ..images.sheet import Cell, picture_sheet, save_png
from ..lidb import file
from ..lidb.injection import Applied
from ..personalize.personalize import Personalized
from ..sampling.sampler import Sampling, sample_many
from .terminal import progress_bar

MULTIPLIERS = (0.0, 0.4, 0.8, 1.2)
STYLES = ("pencil sketch", "oil painting", "cartoon", "sepia photo", "pop art", "pixel art")
SEEDS = (1, 2)
STYLE_MULTIPLIER = 0.8


def write_sheet(host: Host, result: Personalized, saved: Path, path: Path, quiet: bool = False) -> Path:
    """Sample all pictures of the sheet and write it to `path`; the LiDB is read from the file `saved`."""
    after, info = file.load(saved)
    prompt, first = f"a {info.trigger} face", result.first
    sampling = Sampling()
    batches = 3 + len(MULTIPLIERS) + 1
    with progress_bar("Pictures", batches * sampling.steps, quiet) as bar:

        def pictures(prompts: list[str], *applied: Applied, seeds=SEEDS) -> list[np.ndarray]:
            return sample_many(host, prompts, seeds, sampling, applied, bar.update)

        both = [prompt] * len(SEEDS)
        without, predicted, tuned = pictures(both), pictures(both, Applied(first)), pictures(both, Applied(after))
        grown = [pictures([prompt], Applied(after, m, m), seeds=SEEDS[:1])[0] for m in MULTIPLIERS]
        styled_prompts = [f"{prompt}, {style}" for style in STYLES]
        styles = Applied(after, STYLE_MULTIPLIER, STYLE_MULTIPLIER)
        styled = pictures(styled_prompts, styles, seeds=SEEDS[:1] * len(STYLES))
    title = f"One photo, {result.steps} iterations from the {result.start} start, {saved.stat().st_size / 1000:.0f} KB"
    before = "hypernetwork alone" if result.start == "hypernetwork" else f"{result.start} start"
    rows: list[tuple[str, list[Cell]]] = [
        (title, [
            ("the photo", result.crop), *[("without LiDB", p) for p in without],
            *[(before, p) for p in predicted], *[("after the finetune", p) for p in tuned],
        ]),
        ("The multiplier, same seed", [
            ("the photo", result.crop),
            *[(f"<lidb:{info.name}:{m:g}>", p) for m, p in zip(MULTIPLIERS, grown, strict=True)],
        ]),
        (f"Styles at {STYLE_MULTIPLIER:g}, same seed", [
            ("the photo", result.crop), *[(style, p) for style, p in zip(STYLES, styled, strict=True)],
        ]),
    ]  # fmt: skip
    return save_png(picture_sheet(rows), path)
