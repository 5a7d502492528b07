"""What a build costs: measured on this machine, and counted in operations for Stable Diffusion 1.5.

    python -m benchmarks.build_cost measure [--checkpoint FILE] [--device auto]
    python -m benchmarks.build_cost count   [--sustained 60]
    python -m benchmarks.build_cost memory  [--batch 1] [--size 512] [--precision fp32] [--recompute] [--words]

`measure` times a drawn face, a prepared one, a person in a target's step and in a training step, weighs what is kept
on the disk, and works out whole builds. `count` does so for SD 1.5 at 512 px from operations counted on its shapes and
a rate of TFLOP/s that a card is said to sustain. `memory` does one training step on SD 1.5's shapes with random
weights, the recognizers' correction after it included, and tells the most memory that it needed.
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
from hyperdreambooth_ext.hypernet.embedder import Eyes
from hyperdreambooth_ext.hypernet.hypernetwork import WeightDecoder
from hyperdreambooth_ext.hypernet.latent_recognizer import WIDTH, Readers, untaught_readers
from hyperdreambooth_ext.hypernet.lesson import Batch, Described, IdentityLoss, Lesson, Preserved
from hyperdreambooth_ext.hypernet.training import drawing_timesteps, training_losses
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.pretrain.correction import answered, learning, who_is_seen
from hyperdreambooth_ext.pretrain.options import BuildOptions
from hyperdreambooth_ext.sampling.sampler import Sampling, sample_many

from .random_host import RandomHost, sd15_modules
from .targets import median_seconds

TOKENS, CHANNELS = 16, 1280
# How often a training looks at each face, how many drawn pictures are kept, and steps of an optional target.
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
    weighing.add_argument("--words", action="store_true", help="a step that words teach, too")
    for action in (measuring, weighing):
        action.add_argument("--device", default="auto")
    args = parser.parse_args()
    {"measure": measure, "count": count, "memory": memory}[args.action](args)


def measure(args: argparse.Namespace) -> None:
    """Seconds for one face, or one person in one step, and bytes on the disk."""
    host = load_host(Namespace(checkpoint=args.checkpoint, device=args.device))
    eyes, side, options = Eyes(device=host.device), host.default_size // 8, BuildOptions()
    config = HypernetworkConfig(Architecture.of(host.linears()), **eyes.settings)
    decoder = WeightDecoder(config, CHANNELS).to(host.device)
    images = torch.rand(args.batch, 3, host.default_size, host.default_size, device=host.device) * 2 - 1
    features = eyes.features(images)
    batch = a_batch(features, side, args.batch)
    readers, taught = readers_and_lesson(args.batch, host.device)
    sampling = Sampling(steps=2, size=host.default_size)

    def draw() -> None:
        sample_many(host, batch.prompts, range(args.batch), sampling)

    def prepare() -> None:
        eyes.features(torch.cat([images, images]))
        eyes.identities(images)
        host.encode_images(torch.cat([images, images]))

    def target() -> None:
        training_losses(host, decoder, batch, torch.Generator().manual_seed(0))["loss"].backward()

    def step() -> None:
        styled = with_styles(host, batch)
        training_losses(host, decoder, styled, torch.Generator().manual_seed(0), taught)["loss"].backward()

    def correct() -> None:
        correction(host, eyes, readers, batch.latents)

    with host.frozen():
        drawn = median_seconds(draw, args.rounds, host.device) / 2 * options.draw_steps / args.batch
        prepared = median_seconds(prepare, args.rounds, host.device) / args.batch
        optimized = median_seconds(target, args.rounds, host.device) / args.batch
        corrected = median_seconds(correct, args.rounds, host.device) / args.batch
        trained = median_seconds(step, args.rounds, host.device) / args.batch + corrected
    stored = 2 * (features[0].numel() + 4 * side**2) * 2 + 4 * 128
    print(f"{host.checkpoint_name} at {host.default_size} px on {host.device}, {args.batch} at once:")
    print(
        f"a drawn picture {drawn:.3f} s, a prepared face {prepared:.3f} s, a person in a step {trained:.3f} s, of "
        f"which {corrected:.3f} s for the correction of the recognizers, in a target's step {optimized:.3f} s"
    )
    table({"drawn": drawn, "prepared": prepared, "step": trained, "target": optimized}, stored, host.default_size)


def a_batch(features: torch.Tensor, side: int, count: int) -> Batch:
    """People of noise: what a step costs does not depend on who they are."""
    latents = torch.randn(count, 4, side, side, device=features.device)
    identities = torch.randn(count, WIDTH, device=features.device)
    return Batch(features, latents, ["a sks face"] * count, identities=identities)


def with_styles(host: Host, batch: Batch) -> Batch:
    """The same people, and a build's share of them in a style too: the frozen model is asked each time."""
    count = int(BuildOptions.styled * len(batch.latents))
    if not count:
        return batch
    people, timesteps = torch.arange(count), torch.full((count,), 700, device=batch.latents.device)
    with torch.no_grad():
        general = host.encode_prompts(["a face"] * count)
    kept = Preserved(people, batch.latents[:count], timesteps, batch.prompts[:count], general,
                     BuildOptions.style_weight)  # fmt: skip
    return replace(batch, preserved=kept)


@torch.no_grad()
def with_words(host: Host, batch: Batch) -> Batch:
    """The same people, told in words."""
    words, none = host.encode_prompts(["an old man"] * len(batch.latents)), host.encode_prompts([""])
    return replace(batch, described=Described(words, none, BuildOptions.cfg))


def readers_and_lesson(count: int, device: torch.device) -> tuple[Readers, Lesson]:
    """A build's two recognizers, and its lesson: everybody of a step is also drawn from pure noise."""
    readers = untaught_readers(2).requires_grad_(False).to(device)
    return readers, Lesson(identity=IdentityLoss(readers, drawn=count))


def correction(host: Host, eyes: Eyes, readers: Readers, drawings: torch.Tensor) -> None:
    """What a build's recognizers learn after a step, from drawings and as many faces."""
    seen = who_is_seen(host, eyes, drawings).to(drawings.device)
    with learning(readers):
        answered(readers, torch.cat([drawings, drawings]), torch.cat([seen, seen]))
        readers.zero_grad(set_to_none=True)


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
        "drawn": 2 * options.draw_steps * forward / rate,
        "prepared": 2 * (looked + encoded) / rate,
        # Backward through frozen weights: once more the forward's operations.
        "target": 2 * forward / rate,
        # Of those in a style: the frozen model's forward, and one forward and backward. The drawing is looked at.
        "step": ((4 + drawing_forwards() + 3 * options.styled) * forward + shown + looked) / rate,
    }
    print(
        f"SD 1.5 at 512 px: {forward / 1e12:.2f} TFLOP a forward, {encoded / 1e12:.2f} a picture encoded, "
        f"{shown / 1e12:.2f} decoded; at {args.sustained:g} TFLOP/s sustained:"
    )
    table(seconds, 2 * (TOKENS * CHANNELS + 4 * 64 * 64) * 2 + 4 * 128, 512)


def drawing_forwards() -> float:
    """How many forwards without a gradient a drawing takes on the average before the last one."""
    low, high = IdentityLoss.drawn_until
    ends = torch.linspace(low, high, 1000).tolist()
    return sum(len(drawing_timesteps(end, 1000)) - 1 for end in ends) / len(ends)


def table(seconds: dict[str, float], stored: int, size: int) -> None:
    """Hours and storage of whole builds."""
    jpeg = {128: 6_000, 512: 70_000}.get(size, size * size // 4)
    print("\n| faces | devices | drawing | preparing | training | targets (optional) | storage |")
    print("|---|---|---|---|---|---|---|")
    for faces in FACES:
        for devices in DEVICES:
            parts = (
                seconds["drawn"] / KEPT, seconds["prepared"], seconds["step"] * LOOKS, seconds["target"] * TARGET_STEPS
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
    eyes, (readers, taught) = Eyes(device=device), readers_and_lesson(args.batch, device)
    if args.words:
        batch, taught = with_words(host, batch), replace(taught, words=1.0)
    began = time.perf_counter()
    before = peak(device)
    with host.frozen(), host.recomputing() if args.recompute else nullcontext():
        styled = with_styles(host, batch)
        losses = training_losses(host, decoder, styled, torch.Generator().manual_seed(0), taught)
        losses["loss"].backward()
        optimizer.step()
        correction(host, eyes, readers, losses["drawings"])
    print(
        f"batch {args.batch}, {args.size} px, {args.precision}, recompute {'on' if args.recompute else 'off'}, "
        f"words {'on' if args.words else 'off'}, "
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
