"""What a build costs: measured on this machine, and counted in operations for Stable Diffusion 1.5.

    python -m benchmarks.build_cost measure [--checkpoint FILE] [--device auto]
    python -m benchmarks.build_cost count   [--sustained 60]
    python -m benchmarks.build_cost memory  [--batch 1] [--size 512] [--precision fp32] [--recompute]

`measure` times a sampled face, a prepared one, an identity in a target's step and in a training step, weighs what is
kept on the disk, and works out whole builds. `count` does so for SD 1.5 at 512 px from operations counted on its
shapes and a rate of TFLOP/s that a card is said to sustain. `memory` does one training step on SD 1.5's shapes with
random weights and tells the most memory that it needed.
"""

import argparse
import resource
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from hyperdreambooth_ext.cli.commands import load_host
from hyperdreambooth_ext.hosts.protocol import Host
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.embedder import FaceEmbedder
from hyperdreambooth_ext.hypernet.hypernetwork import WeightDecoder
from hyperdreambooth_ext.hypernet.latent_identity import WIDTH, LatentIdentityEnsemble
from hyperdreambooth_ext.hypernet.loss import IdentityLoss, LossConfig
from hyperdreambooth_ext.hypernet.training import Batch, PriorSamples, sample_timesteps, training_losses
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.pretrain.options import BuildOptions
from hyperdreambooth_ext.sampling.sampler import Sampling, sample_many

from .random_host import RandomHost, sd15_modules
from .targets import median_seconds

TOKENS, CHANNELS = 16, 1280
# How often a training takes each face, the share of sampled pictures that is kept, and steps of an optional target.
LOOKS, KEPT, TARGET_STEPS = 20, 0.6, 40
DEVICES, FACES = (1, 8, 64), (15_000, 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    measuring = actions.add_parser("measure")
    measuring.add_argument("--checkpoint", type=Path)
    measuring.add_argument("--batch", type=int, default=8)
    measuring.add_argument("--rounds", type=int, default=2)
    counting = actions.add_parser("count")
    counting.add_argument("--sustained", type=float, default=60.0, help="TFLOP/s of one card (60)")
    weighing = actions.add_parser("memory")
    weighing.add_argument("--batch", type=int, default=1)
    weighing.add_argument("--size", type=int, default=512)
    weighing.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    weighing.add_argument("--recompute", action="store_true", help="keep no activations within the blocks")
    for action in (measuring, weighing):
        action.add_argument("--device", default="auto")
    args = parser.parse_args()
    {"measure": measure, "count": count, "memory": memory}[args.action](args)


def measure(args: argparse.Namespace) -> None:
    """Seconds for one face, or one identity in one step, and bytes on the disk."""
    host = load_host(Namespace(checkpoint=args.checkpoint, device=args.device))
    embedder, side, options = FaceEmbedder(device=host.device), host.default_size // 8, BuildOptions()
    network = HypernetworkConfig(Architecture.of(host.linears()), **embedder.settings)
    decoder = WeightDecoder(network, CHANNELS).to(host.device)
    images = torch.rand(args.batch, 3, host.default_size, host.default_size, device=host.device) * 2 - 1
    features = embedder.features(images)
    batch = a_batch(features, side, args.batch)
    config = a_loss(args.batch, host.device)
    sampling = Sampling(steps=2, size=host.default_size)

    def sample() -> None:
        sample_many(host, batch.prompts, range(args.batch), sampling)

    def prepare() -> None:
        embedder.features(torch.cat([images, images]))
        embedder.identities(images)
        host.encode_images(torch.cat([images, images]))

    def target() -> None:
        training_losses(host, decoder, batch, torch.Generator().manual_seed(0))["loss"].backward()

    def step() -> None:
        with_prior = with_prior_samples(host, batch)
        training_losses(host, decoder, with_prior, torch.Generator().manual_seed(0), config)["loss"].backward()

    with host.frozen():
        sampled = median_seconds(sample, args.rounds, host.device) / 2 * options.sample_steps / args.batch
        prepared = median_seconds(prepare, args.rounds, host.device) / args.batch
        optimized = median_seconds(target, args.rounds, host.device) / args.batch
        trained = median_seconds(step, args.rounds, host.device) / args.batch
    stored = 2 * (features[0].numel() + 4 * side**2) * 2 + 4 * 128
    print(f"{host.checkpoint_name} at {host.default_size} px on {host.device}, {args.batch} in a pass:")
    print(
        f"a sampled picture {sampled:.3f} s, a prepared face {prepared:.3f} s, an identity in a step {trained:.3f} s, "
        f"in a target's step {optimized:.3f} s"
    )
    table({"sampled": sampled, "prepared": prepared, "step": trained, "target": optimized}, stored, host.default_size)


def a_batch(features: torch.Tensor, side: int, count: int) -> Batch:
    """Identities of noise: what a step costs does not depend on them."""
    latents = torch.randn(count, 4, side, side, device=features.device)
    identities = torch.randn(count, WIDTH, device=features.device)
    return Batch(features, latents, ["a sks face"] * count, identities=identities)


def with_prior_samples(host: Host, batch: Batch) -> Batch:
    """The same with a build's share of prior-preservation samples: the frozen model predicts them each time."""
    count = int(BuildOptions.prior_share * len(batch.latents))
    if not count:
        return batch
    rows, timesteps = torch.arange(count), torch.full((count,), 700, device=batch.latents.device)
    with torch.no_grad():
        class_embeds = host.encode_prompts(["a face"] * count)
    prior = PriorSamples(
        rows, batch.latents[:count], timesteps, batch.prompts[:count], class_embeds, BuildOptions.prior_weight
    )  # fmt: skip
    return replace(batch, prior=prior)


def a_loss(count: int, device: torch.device) -> LossConfig:
    """A build's, with its two latent identity nets: every identity of a step is also sampled from pure noise."""
    net = LatentIdentityEnsemble.untrained(2).requires_grad_(False).to(device)
    return LossConfig(identity=IdentityLoss(net, samples=count))


def count(args: argparse.Namespace) -> None:
    """The same for SD 1.5 at 512 px: operations on the meta device, divided by a card's rate."""
    from torch.utils.flop_counter import FlopCounterMode

    from hyperdreambooth_ext.hypernet.encoder import FaceEncoder

    unet, _, vae = (module.eval() for module in sd15_modules())
    # The text encoder's few percent are left out.
    latents, embeds = torch.zeros(1, 4, 64, 64, device="meta"), torch.zeros(1, 77, 768, device="meta")
    timesteps, picture = torch.zeros(1, dtype=torch.long, device="meta"), torch.zeros(1, 3, 512, 512, device="meta")
    encoder = FaceEncoder(HypernetworkConfig(Architecture(())), pretrained=False)

    def operations(module: Callable, *inputs: torch.Tensor, **more: torch.Tensor) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(*inputs, **more)
        return counter.get_total_flops()

    forward = operations(unet, latents, timesteps, encoder_hidden_states=embeds)
    looked = operations(encoder, torch.zeros(1, 3, 128, 128))
    encoded, shown = operations(vae.encode, picture), operations(vae.decode, latents)
    rate = args.sustained * 1e12
    options = BuildOptions()
    seconds = {
        "sampled": 2 * options.sample_steps * forward / rate,
        "prepared": 2 * (looked + encoded) / rate,
        # Backward through frozen weights: once more the forward's operations.
        "target": 2 * forward / rate,
        # Of prior samples: the frozen model's forward, and one forward and backward.
        "step": (4 + sample_forwards() + 3 * options.prior_share) * forward / rate,
    }
    print(
        f"SD 1.5 at 512 px: {forward / 1e12:.2f} TFLOP a forward, {encoded / 1e12:.2f} a picture encoded, "
        f"{shown / 1e12:.2f} decoded; at {args.sustained:g} TFLOP/s sustained:"
    )
    table(seconds, 2 * (TOKENS * CHANNELS + 4 * 64 * 64) * 2 + 4 * 128, 512)


def sample_forwards() -> float:
    """How many forwards without a gradient a sample takes on the average before the last one."""
    low, high = IdentityLoss.sampled_until
    ends = torch.linspace(low, high, 1000).tolist()
    return sum(len(sample_timesteps(end, 1000)) - 1 for end in ends) / len(ends)


def table(seconds: dict[str, float], stored: int, size: int) -> None:
    """Hours and storage of whole builds."""
    jpeg = {128: 6_000, 512: 70_000}.get(size, size * size // 4)
    print("\n| faces | devices | sampling | preparing | training | targets (optional) | storage |")
    print("|---|---|---|---|---|---|---|")
    for faces in FACES:
        for devices in DEVICES:
            parts = (
                seconds["sampled"] / KEPT, seconds["prepared"], seconds["step"] * LOOKS,
                seconds["target"] * TARGET_STEPS,
            )  # fmt: skip
            hours = " | ".join(f"{part * faces / devices / 3600:,.1f} h" for part in parts)
            print(f"| {faces:,} | {devices} | {hours} | {(stored + jpeg) * faces / 1e9:,.1f} GB |")


def memory(args: argparse.Namespace) -> None:
    """One training step of the hypernetwork; forward, backward and the optimizer's two moments."""
    device = torch.device("cuda" if args.device == "auto" and torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    host = RandomHost(str(device), dtype, args.size)
    decoder = WeightDecoder(HypernetworkConfig(Architecture.of(host.linears())), CHANNELS).to(device)
    optimizer = torch.optim.AdamW(decoder.parameters())
    side = args.size // 8
    batch = a_batch(torch.randn(args.batch, TOKENS, CHANNELS, device=device), side, args.batch)
    config = a_loss(args.batch, device)
    began = time.perf_counter()
    before = peak(device)
    with host.frozen(), host.recomputing() if args.recompute else nullcontext():
        with_prior = with_prior_samples(host, batch)
        losses = training_losses(host, decoder, with_prior, torch.Generator().manual_seed(0), config)
        losses["loss"].backward()
        optimizer.step()
    print(
        f"batch {args.batch}, {args.size} px, {args.precision}, recompute {'on' if args.recompute else 'off'}, "
        f"{device}: {peak(device):.1f} GB at the most ({before:.1f} GB with the model loaded), "
        f"{time.perf_counter() - began:.0f} s"
    )


def peak(device: torch.device) -> float:
    """The most memory so far, in GB: the card's, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
