"""How many targets are optimized a second: one at a time, and many in one forward and backward.

    python -m benchmarks.targets [--batches 1,4,16,32] [--steps 4] [--rounds 3] [--precision fp32]

On the embedded checkpoint or --checkpoint FILE, with latents of noise: what they show does not change what they cost.
Seconds are of computing time (wall time on a graphics card), the median of the rounds; a target takes --target-steps
steps. The forward alone is timed too, so that one sees what limits.
"""

import argparse
import statistics
import time
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import torch

from hyperdreambooth_ext.cli.commands import load_host
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.hypernetwork import WeightDecoder
from hyperdreambooth_ext.hypernet.targets import preoptimize
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.sampling.schedule import add_noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="1,4,16,32")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--target-steps", type=int, default=40)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    host = load_host(Namespace(checkpoint=args.checkpoint, device=args.device))
    decoder = WeightDecoder(HypernetworkConfig(Architecture.of(host.linears())), 1280).to(host.device)
    half = torch.autocast(host.device.type, dtype=torch.bfloat16) if args.precision == "bf16" else nullcontext()
    print("| identities in a pass | seconds a step | targets a second | against one | forward alone, no LiDB |")
    print("|---|---|---|---|---|")
    alone = None
    for batch in (int(number) for number in args.batches.split(",")):
        latents = torch.randn(batch, 4, host.default_size // 8, host.default_size // 8, device=host.device)

        def targets(latents=latents) -> None:
            generator = torch.Generator().manual_seed(0)
            preoptimize(host, decoder, lambda step: latents, "a sks face", generator, steps=args.steps)

        def forward(latents=latents, batch=batch) -> None:
            with torch.no_grad():
                embeds = host.encode_prompts(["a sks face"] * batch)
                timesteps = torch.full((batch,), 500, device=host.device)
                noisy = add_noise(latents, latents, host.alphas_cumprod[timesteps])
                host.predict(noisy, timesteps, embeds)

        with host.frozen(), half:
            seconds = median_seconds(targets, args.rounds, host.device) / args.steps
            plain = median_seconds(forward, args.rounds, host.device)
        rate = batch / seconds / args.target_steps
        alone = alone or rate
        print(f"| {batch} | {seconds:.3f} | {rate:.3f} | {rate / alone:.1f} × | {plain:.3f} |", flush=True)


def median_seconds(work, rounds: int, device: torch.device) -> float:
    """The median over `rounds` after one that is not counted."""
    times = []
    for _ in range(rounds + 1):
        began = now(device)
        work()
        times.append(now(device) - began)
    return statistics.median(times[1:])


def now(device: torch.device) -> float:
    """Computing time of this process, so that others on the machine do not count; a graphics card has its own clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


if __name__ == "__main__":
    main()
