"""How cost grows with rank, layers, resolution, rounds of the hypernetwork, LiDBs in a prompt, identities in a pass.

    python run.py growth OUT_DIR [--runs 5] [--only rank,resolution]

On the bundled checkpoint, one thread, processor time; the values of a kind are tried in turn, over and over. Writes
growth.png, one plot a kind, and prints the exponent: the slope in a plot with both axes logarithmic, so 1 means twice
as much of it costs twice as much, 0 that it costs nothing. growth.json holds the medians in seconds.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hyperdreambooth_ext.files import write_atomically
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.file import fitting_hypernetwork
from hyperdreambooth_ext.hypernet.loss import denoising_errors
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.weights import LiDB
from hyperdreambooth_ext.personalize.batch import Subject
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, finetune
from hyperdreambooth_ext.shipped import CHECKPOINT, MODELS

from .random_host import random_lidb

Runner = Callable[[], object]
PROMPT = "a sks face"


class Bench:
    """The bundled checkpoint, ready to be measured."""

    def __init__(self) -> None:
        self.host = DiffusersHost(CHECKPOINT)
        self.linears = self.host.linears()
        self.architecture = Architecture.of(self.linears)
        self.hypernetwork = fitting_hypernetwork(self.host, MODELS)
        with torch.no_grad():
            self.embeds = self.host.encode_prompts([PROMPT])

    def finetune_step(self, lidb: LiDB, pixels: int) -> Runner:
        """One iteration of batch 8, with all that is done once before it."""
        latents = torch.randn(2, 4, pixels // 8, pixels // 8)
        options = FinetuneOptions(steps=1, batch=8, prior_batch=0, lr=0.03)
        subject = Subject(torch.empty(0), latents, None, PROMPT)
        return lambda: finetune(self.host, subject, lidb, options, torch.Generator().manual_seed(0))

    def rank(self, rank: int) -> Runner:
        return self.finetune_step(random_lidb(self.architecture, rank), 128)

    def layers(self, count: int) -> Runner:
        """The UNet's last `count` layers alone."""
        unet = [layer for layer in self.architecture.layers if layer.key.startswith("lora_unet_")]
        return self.finetune_step(random_lidb(Architecture(tuple(unet[-count:])), 2), 128)

    def resolution(self, pixels: int) -> Runner:
        return self.finetune_step(random_lidb(self.architecture, 2), pixels)

    def rounds(self, count: int) -> Runner:
        """A prediction with k = `count`, the face's features included."""
        hypernetwork = self.hypernetwork
        assert hypernetwork is not None
        config, decoder = hypernetwork.config, hypernetwork.decoder
        image = torch.randn(1, 3, config.image_size, config.image_size)

        def predict() -> None:
            decoder.config = replace(config, iterations=count)
            hypernetwork.predict(image)

        return predict

    @torch.no_grad()
    def _pass(self, applied: list[Applied]) -> None:
        latents, timesteps = torch.randn(1, 4, 16, 16), torch.tensor([500])
        with injected(self.linears, *applied):
            for _ in range(4):
                self.host.predict(latents, timesteps, self.embeds)

    def lidbs(self, count: int) -> Runner:
        """Four steps of a picture with so many LiDBs in its prompt, their preparation included."""
        return partial(self._pass, [Applied(random_lidb(self.architecture, 2, seed)) for seed in range(count)])

    def identities(self, count: int) -> Runner:
        """Gradients for so many identities in one pass, one sample each, as targets are optimized."""
        of_each = [random_lidb(self.architecture, 1, seed) for seed in range(count)]
        a_train = {key: torch.stack([one.a_train[key] for one in of_each]) for key in of_each[0].a_train}
        b_train = {key: torch.stack([one.b_train[key] for one in of_each]) for key in of_each[0].b_train}
        lidb = LiDB(self.architecture, Basis(), a_train, b_train).trainable()
        latents, timesteps = torch.randn(count, 4, 16, 16), torch.full((count,), 500)
        trained = [lidb.a_train[layer.key] for layer in self.architecture.layers if "_te_" not in layer.key]

        def step() -> None:
            with injected(self.linears, Applied(lidb, text=0.0)):
                embeds = self.embeds.expand(count, -1, -1)
                loss = denoising_errors(self.host, latents, torch.randn_like(latents), timesteps, embeds).mean()
            torch.autograd.grad(loss, trained)

        return step


KINDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "rank": ("rank, an iteration of the finetune", (1, 2, 4, 8, 16)),
    "layers": ("layers, an iteration of the finetune", (9, 18, 36, 72, 144)),
    "resolution": ("side in pixels, an iteration of the finetune", (64, 128, 192)),
    "rounds": ("rounds k of the hypernetwork, a prediction", (1, 2, 4, 8)),
    "lidbs": ("LiDBs in a prompt, four steps of a picture", (1, 2, 4, 8)),
    "identities": ("identities in a pass, one iteration of their targets", (1, 2, 4, 8)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default=",".join(KINDS), help="comma-separated")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bench = Bench()
    measured = {}
    print("| | " + "median ms at each | exponent |\n|---|---|---|")
    with bench.host.frozen():
        for kind in args.only.split(","):
            name, values = KINDS[kind]
            measured[kind] = in_turn({value: getattr(bench, kind)(value) for value in values}, args.runs)
            shown = ", ".join(f"{value}: {seconds * 1e3:.0f}" for value, seconds in measured[kind].items())
            print(f"| {name} | {shown} | {exponent(measured[kind]):.2f} |", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "growth.json").write_text(json.dumps(measured, indent=2) + "\n")
    plot(args.out / "growth.png", measured)


def in_turn(runners: dict[int, Runner], runs: int) -> dict[int, float]:
    """Median processor seconds for each value, after one run that is not counted."""
    times: dict[int, list[float]] = {value: [] for value in runners}
    for _ in range(runs + 1):
        for value, runner in runners.items():
            began = time.process_time()
            runner()
            times[value].append(time.process_time() - began)
    return {value: statistics.median(of[1:]) for value, of in times.items()}


def exponent(seconds: dict[int, float]) -> float:
    """The slope of log seconds over log value, by least squares."""
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def plot(file: Path, measured: dict[str, dict[int, float]]) -> None:
    with plotted(file, len(measured)) as all_axes:
        for axes, (kind, seconds) in zip(all_axes, measured.items(), strict=True):
            axes.plot(list(seconds), [1e3 * value for value in seconds.values()], "o-", color="black")
            axes.set(xscale="log", yscale="log", xlabel=KINDS[kind][0].replace(", ", ":\n"), ylabel="ms")
            axes.set_xticks(list(seconds), labels=list(seconds))
            # A cost that hardly grows shall look like it: the axis spans a factor of ten at least.
            middle = 1e3 * float(np.sqrt(min(seconds.values()) * max(seconds.values())))
            span = max(3.2, 1.2 * float(np.sqrt(max(seconds.values()) / min(seconds.values()))))
            ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if 1 / span < t / middle < span]
            axes.set_ylim(middle / span, middle * span)
            axes.set_yticks(ticks, labels=ticks)
            axes.minorticks_off()
            axes.set_title(f"exponent {exponent(seconds):.2f}", fontsize=10)
            axes.grid(alpha=0.3)


@contextmanager
def plotted(file: Path, count: int) -> Iterator[list]:
    """Axes to plot on; the PNG is written afterwards."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, count)
    figure = Figure(figsize=(3.4 * columns, 3 * -(-count // columns)), dpi=100)
    yield [figure.add_subplot(-(-count // columns), columns, i + 1) for i in range(count)]
    figure.tight_layout()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(file, buffer.getvalue())


if __name__ == "__main__":
    main()
