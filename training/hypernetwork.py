"""Train the hypernetwork of the bundled checkpoint: on targets, the diffusion loss and an identity loss.

python -m training.hypernetwork features DATA ENCODER.safetensors FEATURES
python -m training.hypernetwork targets  DATA CACHE FEATURES TEXT_TO_IMAGE.safetensors [--identities 400]
python -m training.hypernetwork train    DATA CACHE FEATURES TEXT_TO_IMAGE.safetensors OUT [--steps 5000]
                                         [--identity-net LATENT_IDENTITY.safetensors …] [--samples 12]
python -m training.hypernetwork export   CHECKPOINT.safetensors ENCODER.safetensors OUT FILE.safetensors
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from safetensors.torch import save as safetensors_bytes

from hyperdreambooth_ext.files import write_atomically
from hyperdreambooth_ext.hosts.checkpoint import file_sha256
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.encoder import FaceEncoder
from hyperdreambooth_ext.hypernet.file import save_hypernetwork
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork, WeightDecoder
from hyperdreambooth_ext.hypernet.latent_identity import LatentIdentityEnsemble
from hyperdreambooth_ext.hypernet.loss import IdentityLoss, LossConfig
from hyperdreambooth_ext.hypernet.targets import preoptimize
from hyperdreambooth_ext.hypernet.training import training_losses
from hyperdreambooth_ext.lidb.layers import Architecture

from .captions import PHOTO
from .encoder import TEACHER_WIDTH, encoder_config
from .host import TrainingHost
from .loop import Run, train
from .models import SIZE
from .pairs import Pairs
from .photos import Photos, resized

TARGET_BATCH = 32
TRAINED_ON = "synthetic identities of MobileStyleGAN (FFHQ), 3 photos each, and 11 styles"


@torch.no_grad()
def features(args: argparse.Namespace) -> None:
    """Cache the frozen encoder's features of all photos, float16 [photos, tokens, channels]."""
    device = torch.device(args.device)
    photos, network = Photos(args.data, device), FaceEncoder(encoder_config(), pretrained=False)
    weights, head = _split(args.encoder)
    network.load_state_dict(weights)
    network.to(device).eval()
    chosen = np.array([i for i, row in enumerate(photos.rows) if row["style"] == PHOTO])
    parts = np.array_split(chosen, max(1, len(chosen) // 64))
    cached = [network(resized(photos.pictures(part), SIZE)).half().cpu().numpy() for part in parts]
    args.features.mkdir(parents=True, exist_ok=True)
    np.save(args.features / "features.npy", np.concatenate(cached))
    np.save(args.features / "photos.npy", chosen)
    save_file(head, args.features / "head.safetensors")
    print(f"{len(chosen)} photos")


def _split(encoder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The encoder's weights and those of the head that names an identity, from training.encoder's file."""
    weights = load_file(encoder)
    head = {key.removeprefix("head."): value for key, value in weights.items() if key.startswith("head.")}
    return {k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")}, head


def _config(host: TrainingHost) -> HypernetworkConfig:
    return replace(encoder_config(), architecture=Architecture.of(host.linears()), identity_width=TEACHER_WIDTH)


def _start(pairs: Pairs, args: argparse.Namespace) -> tuple[TrainingHost, WeightDecoder]:
    host = TrainingHost(args.text_to_image, pairs.device)
    torch.manual_seed(args.seed)
    decoder = WeightDecoder(_config(host), pairs.features.shape[-1])
    decoder.whiten(pairs.features[::10].float().cpu())
    decoder.identity_weight.copy_(pairs.head["weight"])
    decoder.identity_bias.copy_(pairs.head["bias"])
    return host, decoder.to(pairs.device)


def targets(args: argparse.Namespace) -> None:
    """Pre-optimize LiDBs for the first `identities` people, in shards of `batch`; shards that exist are kept."""
    pairs = Pairs(args.data, args.cache, args.features, torch.device(args.device))
    host, decoder = _start(pairs, args)
    with host.frozen():
        for first in range(0, args.identities, args.batch):
            file = args.features / f"targets-{first:05d}.safetensors"
            if file.exists():
                continue
            people = pairs.identities[first : first + args.batch]
            photos = [pairs.photos_of(who) for who in people]

            def latents_at(step: int, photos=photos) -> torch.Tensor:
                return pairs.latents[[of[step % len(of)] for of in photos], 0].float()

            generator = torch.Generator().manual_seed(first)
            theta = preoptimize(host, decoder, latents_at, "a sks face", generator)
            # Whole or absent: a shard that exists is never made again.
            write_atomically(file, safetensors_bytes({"theta": theta.cpu(), "people": torch.from_numpy(people)}))
            print(f"{first + len(people)} people", flush=True)


class SizeOfChange:
    """‖ΔW‖/‖W‖ of each layer: a LiDB that moves the network further than it must burns the picture."""

    def __init__(self, host: TrainingHost, decoder: WeightDecoder) -> None:
        linears, layers = host.linears(), decoder.config.architecture.layers
        self.norms = torch.stack([linears[layer.key].weight.detach().norm() for layer in layers])
        self.is_a = decoder.is_a()

    def __call__(self, theta: torch.Tensor) -> torch.Tensor:
        """θ [B, layers, a + b] -> [B, layers]. The bases are orthonormal, so ‖ΔW‖ = ‖A_train‖ · ‖B_train‖."""
        a, b = (theta * self.is_a).norm(dim=-1), (theta * (1 - self.is_a)).norm(dim=-1)
        return a * b / self.norms


def train_hypernetwork(args: argparse.Namespace) -> None:
    """First `target_steps` on the targets alone, then on the diffusion loss, the identity loss and the size of ΔW."""
    pairs = Pairs(args.data, args.cache, args.features, torch.device(args.device))
    host, decoder = _start(pairs, args)
    if args.weights:
        decoder.load_state_dict(load_file(args.weights))
    shards = (
        [load_file(file) for file in sorted(args.features.glob("targets-*.safetensors"))] if args.target_steps else []
    )
    theta_of = {int(p): theta for shard in shards for p, theta in zip(shard["people"], shard["theta"], strict=True)}
    size_of, config = SizeOfChange(host, decoder), LossConfig(identity=_identity_loss(args, pairs.device))

    def on_targets(rng: np.random.Generator, generator: torch.Generator) -> dict[str, torch.Tensor]:
        people = rng.choice(np.array(sorted(theta_of)), TARGET_BATCH, replace=False)
        wanted = torch.stack([theta_of[int(p)] for p in people]).to(pairs.device)
        batch = replace(pairs.batch(rng, people), targets=wanted)
        return training_losses(host, decoder, batch, generator, LossConfig(alpha=0.0, beta=1.0))

    def losses(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(args.seed * args.steps + step)
        if step < args.target_steps:
            return on_targets(rng, generator)
        batch = pairs.batch(rng, rng.choice(pairs.identities, args.batch, replace=False))
        parts = training_losses(host, decoder, batch, generator, config)
        sizes = size_of(decoder(batch.features))
        parts |= {"relative_size": sizes.detach().median(), "largest_size": sizes.detach().max()}
        return parts | {"loss": parts["loss"] + args.size_weight * sizes.square().mean()}

    run = Run(args.steps, args.lr, args.minutes, args.whole, seed=args.seed, ema=0.995)
    with host.frozen():
        average = train(args.out, decoder, losses, run, is_adamw=lambda name: True)
    tensors = {key: value.contiguous() for key, value in average.state_dict().items()}
    write_atomically(args.out / "decoder.safetensors", safetensors_bytes(tensors))


def _identity_loss(args: argparse.Namespace, device: torch.device) -> IdentityLoss | None:
    if args.identity_net is None:
        return None
    nets = LatentIdentityEnsemble.load(args.identity_net).to(device)
    return IdentityLoss(nets, args.identity_weight, args.samples, args.sampled_weight)


def export(args: argparse.Namespace) -> None:
    """Write the hypernetwork file for the product, tied to CHECKPOINT's hash."""
    config = replace(
        _config(TrainingHost()), checkpoint=args.checkpoint.stem,
        checkpoint_hash=file_sha256(args.checkpoint)[:10], trained_on=TRAINED_ON,
    )  # fmt: skip
    network = Hypernetwork(config)
    network.encoder.load_state_dict(_split(args.encoder)[0])
    network.decoder.load_state_dict(load_file(args.out / "decoder.safetensors"))
    save_hypernetwork(args.file, network)
    print(f"{args.file}: {args.file.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    caching, optimizing, training, exporting = map(actions.add_parser, ("features", "targets", "train", "export"))
    places = {
        caching: ("data", "encoder", "features"),
        optimizing: ("data", "cache", "features", "text_to_image"),
        training: ("data", "cache", "features", "text_to_image", "out"),
        exporting: ("checkpoint", "encoder", "out", "file"),
    }
    for action, names in places.items():
        for name in names:
            action.add_argument(name, type=Path)
        action.add_argument("--device", default="cpu")
        action.add_argument(
            "--seed", type=int, default=0, help="of the first weights, and of what is seen in which step"
        )
    optimizing.add_argument("--identities", type=int, default=400)
    optimizing.add_argument("--batch", type=int, default=16)
    _add_training_options(training)
    args = parser.parse_args()
    {"features": features, "targets": targets, "train": train_hypernetwork, "export": export}[args.action](args)


def _add_training_options(training: argparse.ArgumentParser) -> None:
    training.add_argument("--steps", type=int, default=5000)
    training.add_argument("--minutes", type=float, default=float("inf"), help="of this call; the next one goes on")
    training.add_argument("--whole", action="store_true", help="the learning rate falls before the minutes end")
    training.add_argument("--batch", type=int, default=16)
    training.add_argument("--lr", type=float, default=1e-3)
    training.add_argument("--target-steps", type=int, default=0, help="so many steps on the targets first")
    training.add_argument("--identity-net", type=Path, nargs="+", help="what training.latent_identity wrote")
    training.add_argument("--identity-weight", type=float, default=0.1)
    training.add_argument("--samples", type=int, default=0, help="so many people a step are also sampled from noise")
    training.add_argument("--sampled-weight", type=float, default=0.3)
    training.add_argument("--size-weight", type=float, default=0.01, help="how much the size of ΔW costs")
    training.add_argument("--weights", type=Path, help="decoder.safetensors of an earlier run")


if __name__ == "__main__":
    main()
