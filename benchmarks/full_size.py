"""The whole personalization at Stable Diffusion 1.5's size, broken down; the weights are random.

    python run.py full_size --size 256 --batch 1 --steps 2
    python run.py full_size --device cuda --dtype bfloat16 --runs 2 [--micro-batch-size 8] [--low-memory]

Time and memory do not depend on the weights' values. The hypernetwork has the bundled one's make (EfficientNet-Lite0,
a decoder of width 128) with SD 1.5's 192 layers. With fewer --steps than the default the rest of them is worked out
from the steps that were taken, and the table says so. Of several runs the last is told: the first also fetches
libraries and memory. On a graphics card the memory is what torch had reserved at most.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.images.photo import load_photo
from hyperdreambooth_ext.jobs.forecast import peak_megabytes
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.personalize.batch import prepare_subject
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, Progress, finetune
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO

from .machine import CLOCKS, add_machine_options
from .people import face_of
from .random_host import RandomHost


class Parts:
    """Seconds of each part of the job, in order."""

    def __init__(self, device: torch.device, clock: str) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self.clock = clock

    def now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return CLOCKS[self.clock]()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = self.now()
        yield
        self.seconds[name] = self.now() - began


def main() -> None:
    defaults = FinetuneOptions()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="pixels")
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--micro-batch-size", type=int, help="samples in one pass (default: the finetune's own)")
    parser.add_argument("--low-memory", action="store_true", help="as `run.py personalize --low-memory`")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--prior-batch", type=int, default=defaults.prior_batch, help="prior-preservation samples")
    add_machine_options(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    host = RandomHost(args.device, getattr(torch, args.dtype), args.size)
    loaded = memory(host.device)
    micro_batch_size = 1 if args.low_memory else args.micro_batch_size
    options = FinetuneOptions(
        steps=args.steps, batch=args.batch, prior_batch=args.prior_batch, micro_batch_size=micro_batch_size
    )
    with host.recomputing() if args.low_memory else nullcontext():
        for _ in range(args.runs):
            parts = Parts(host.device, args.clock)
            step_times = personalized(host, options, parts)
    print(f"SD 1.5's shapes, random weights, {args.size} px, batch {args.batch} and prior batch {args.prior_batch}, "
          f"micro batches of {micro_batch_size or 'the default size'}{', low memory' if args.low_memory else ''}, "
          f"{args.dtype} on {args.device}, {args.threads} threads, {args.clock} clock, run {args.runs}\n\n"
          "| part | seconds |\n|---|---|")  # fmt: skip
    whole = sum(parts.seconds.values())
    for name, seconds in parts.seconds.items():
        print(f"| {name} | {seconds:.2f} |")
    if args.steps < defaults.steps:
        # The first step also fetches memory: the later ones say what the rest would take.
        step = min(step_times)
        whole += (defaults.steps - args.steps) * step
        seconds = whole - sum(parts.seconds.values())
        print(f"| {defaults.steps - args.steps} further steps of {step:.2f} s, worked out | {seconds:.0f} |")
    print(f"| the whole, {defaults.steps} iterations | {whole:.1f} |\n")
    print(f"Memory: {loaded:.0f} MB with the model loaded, {memory(host.device):.0f} MB at the most.")


def personalized(host: DiffusersHost, options: FinetuneOptions, parts: Parts) -> list[float]:
    """`personalize.personalize` step by step, with the clock between them; returns the seconds of each iteration."""
    architecture = Architecture.of(host.linears())
    hypernetwork = Hypernetwork(HypernetworkConfig(architecture)).eval().requires_grad_(False).to(host.device)
    photo, generator = load_photo(SAMPLE_PHOTO), torch.Generator().manual_seed(0)
    times, last = [], 0.0

    # By the processor's clock alone: to wait for a graphics card at each step would slow it down.
    def on_step(_: Progress) -> None:
        nonlocal last
        now = CLOCKS[parts.clock]()
        times.append(now - last)
        last = now

    with host.frozen(), TemporaryDirectory() as folder:
        with parts.part("face"):
            crop = face_of(photo, host.default_size)
        with parts.part("encode"):
            subject = prepare_subject(crop, host, "a sks face")
        with parts.part("predict"):
            image = torch.nn.functional.interpolate(subject.image, (128, 128), mode="area").to(host.device)
            first = hypernetwork.predict(image).relaxed(options.rank, generator)
        with parts.part(f"finetune, {options.steps} iterations"):
            last = parts.now()
            done = finetune(host, subject, first, options, generator, on_step)
        with parts.part("save"):
            file.save(Path(folder) / "x.safetensors", done.lidb, file.Info(name="x"))
    return times


def memory(device: torch.device) -> float:
    """MB at the most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 1e6
    return peak_megabytes() or float("nan")


if __name__ == "__main__":
    main()
