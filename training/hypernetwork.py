"""Train the hypernetwork of the embedded checkpoint: on targets, the diffusion loss and an identity loss.

    python -m training.hypernetwork features DATA_DIR ENCODER.safetensors OUT_DIR
    python -m training.hypernetwork targets  DATA_DIR CHECKPOINT_RUN OUT_DIR [--identities 400]
    python -m training.hypernetwork train    DATA_DIR CHECKPOINT_RUN OUT_DIR [--steps 3000] [--target-steps 800]
                                             [--recogniser LATENT_RECOGNISER.safetensors --faces FACES_DIR]
    python -m training.hypernetwork export   CHECKPOINT.safetensors ENCODER.safetensors OUT_DIR FILE.safetensors

The face goes in from one photo of a person and the loss is taken on another, upright or mirrored, as a photo or in a
style: so the weights learn who this is and not how one photo looked. CHECKPOINT_RUN is `training.checkpoint`'s folder.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
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
from hyperdreambooth_ext.hypernet.targets import preoptimize as preoptimise
from hyperdreambooth_ext.hypernet.training import Batch, training_losses
from hyperdreambooth_ext.images.face import face_mask
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.layers import Architecture

from .captions import PHOTO
from .checkpoint import TextToImage
from .encoder import TEACHER_WIDTH
from .host import TrainingHost
from .loop import train
from .pairs import Sampler, index_of, known_identities
from .picture_judge import PictureJudge

TARGET_BATCH = 32
ITERATIONS = HypernetworkConfig(Architecture(())).iterations
TRAINED_ON = "3,273 synthetic identities of MobileStyleGAN (FFHQ), 3 photos each, and 11 styles"


@torch.no_grad()
def features(args: argparse.Namespace) -> None:
    """Cache the frozen encoder's features of all photos, float16 [rows, tokens, channels]; other styles get none."""
    rows, images = index_of(args.data), np.load(args.data / "images.npy", mmap_mode="r")
    network = FaceEncoder(HypernetworkConfig(Architecture(())), pretrained=False)
    network.load_state_dict(_split(args.encoder)[0])
    photos = np.array([i for i, row in enumerate(rows) if row["style"] == PHOTO])
    args.out.mkdir(parents=True, exist_ok=True)
    cached = []
    for part in np.array_split(photos, max(1, len(photos) // 64)):
        batch = torch.from_numpy(images[part]).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
        cached.append(network(batch).half().numpy())
    np.save(args.out / "features.npy", np.concatenate(cached))
    np.save(args.out / "photos.npy", photos)
    save_file(_split(args.encoder)[1], args.out / "head.safetensors")
    print(f"{len(photos)} photos")


def _split(encoder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The encoder's weights and those of the head that names an identity, from training.encoder's file."""
    weights = load_file(encoder)
    head = {key.removeprefix("head."): value for key, value in weights.items() if key.startswith("head.")}
    return {k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")}, head


def _config(host: TrainingHost, args: argparse.Namespace) -> HypernetworkConfig:
    return HypernetworkConfig(
        Architecture.of(host.linears()),
        basis=Basis(4096, 4096) if args.full_basis else Basis(),
        identity_width=0 if args.no_identity_vector else TEACHER_WIDTH,
        iterations=args.iterations,
    )


def _start(checkpoint_run: Path, sampler: Sampler, args: argparse.Namespace) -> tuple[TrainingHost, WeightDecoder]:
    model = TextToImage()
    model.load_state_dict(load_file(checkpoint_run / "text_to_image.safetensors"), strict=False)
    host = TrainingHost(model)
    torch.manual_seed(args.seed)
    decoder = WeightDecoder(_config(host, args), sampler.features.shape[-1])
    decoder.whiten(torch.from_numpy(sampler.features[::10].copy()).float())
    if not args.no_identity_vector:
        decoder.identity_weight.copy_(sampler.head["weight"])
        decoder.identity_bias.copy_(sampler.head["bias"])
    return host, decoder


def targets(args: argparse.Namespace) -> None:
    """Pre-optimise LiDBs for the first `identities` people, in shards of `batch`; shards that exist are kept."""
    sampler = Sampler(args.data, args.checkpoint_run, args.out, args.identities)
    host, decoder = _start(args.checkpoint_run, sampler, args)
    with host.frozen():
        for first in range(0, args.identities, args.batch):
            file = args.out / f"targets-{first:05d}.safetensors"
            if file.exists():
                continue
            people = sampler.identities[first : first + args.batch]
            photos = [[i for i in sampler.people[p] if sampler.rows[i]["style"] == PHOTO] for p in people]

            def latents_at(step: int, photos=photos) -> torch.Tensor:
                return torch.from_numpy(sampler.latents[[of[step % len(of)] for of in photos]]).float()

            generator = torch.Generator().manual_seed(first)
            theta = preoptimise(host, decoder, latents_at, "a sks face", generator)
            # Whole or absent: a shard that exists is never made again.
            write_atomically(file, safetensors_bytes({"theta": theta, "people": torch.from_numpy(people)}))
            print(f"{first + len(people)} people", flush=True)


def train_hypernetwork(args: argparse.Namespace) -> None:
    """First `target_steps` on the targets alone, then on the diffusion loss and, with a recogniser, the identity loss.

    Resumes from OUT/state.pt.
    """
    sampler = Sampler(args.data, args.checkpoint_run, args.out, args.identities)
    host, decoder = _start(args.checkpoint_run, sampler, args)
    if args.start:
        decoder.load_state_dict(load_file(args.start))
    known = known_identities(args.faces) if args.recogniser else None
    shards = [load_file(file) for file in sorted(args.out.glob("targets-*.safetensors"))] if args.target_steps else []
    theta_of = {int(p): theta for shard in shards for p, theta in zip(shard["people"], shard["theta"], strict=True)}
    taught = np.array(sorted(theta_of))
    config = LossConfig(
        timesteps=tuple(args.timesteps),
        mask=_latent_mask(host.default_size) if args.masked else None,
        identity=_identity_loss(args),
    )

    def batch_of(people: np.ndarray, rng: np.random.Generator) -> Batch:
        batch = sampler.batch(rng, people)
        return batch if known is None else replace(batch, identities=torch.stack([known[int(p)] for p in people]))

    def losses(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(args.seed * args.steps + step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if step >= args.target_steps:
                people = rng.choice(sampler.identities, args.batch, replace=False)
                parts = training_losses(host, decoder, batch_of(people, rng), generator, config)
                # No loss: a build's recognisers learn from them.
                parts.pop("samples", None)
                return parts
            people = rng.choice(taught, TARGET_BATCH, replace=False)
            batch = replace(batch_of(people, rng), targets=torch.stack([theta_of[int(p)] for p in people]))
            return training_losses(host, decoder, batch, generator, LossConfig(alpha=0.0, beta=1.0))

    with host.frozen():
        average = train(args.out, decoder, losses, steps=args.steps, lr=args.lr, seed=args.seed)
    tensors = {key: value.contiguous() for key, value in average.state_dict().items()}
    write_atomically(args.out / "decoder.safetensors", safetensors_bytes(tensors))


def _identity_loss(args: argparse.Namespace) -> IdentityLoss | None:
    if args.recogniser is None:
        return None
    judge = None
    if args.sface:
        judge = PictureJudge(args.autoencoder, args.checkpoint_run / "scale.safetensors", args.sface)
    return IdentityLoss(
        LatentIdentityEnsemble.load(args.recogniser), args.identity_weight, args.drawn, args.drawn_weight,
        sampled_until=tuple(args.drawn_until), judge=judge,
    )  # fmt: skip


def _latent_mask(size: int) -> torch.Tensor:
    return F.interpolate(torch.from_numpy(face_mask(size))[None, None], scale_factor=1 / 8, mode="area")


def export(args: argparse.Namespace) -> None:
    """Write the hypernetwork file for the product, tied to CHECKPOINT's hash."""
    config = _config(TrainingHost(TextToImage()), args)
    config = replace(
        config, checkpoint=args.checkpoint.stem, checkpoint_hash=file_sha256(args.checkpoint)[:10],
        trained_on=TRAINED_ON,
    )  # fmt: skip
    if args.from_state:
        average = torch.load(args.out / "state.pt", weights_only=True)["average"]
        decoder = {key.removeprefix("module."): v for key, v in average.items() if key.startswith("module.")}
    else:
        decoder = load_file(args.out / "decoder.safetensors")
    network = Hypernetwork(config)
    network.encoder.load_state_dict(_split(args.encoder)[0])
    network.decoder.load_state_dict(decoder)
    if args.readers:
        network.carry(LatentIdentityEnsemble.load(args.readers))
    save_hypernetwork(args.file, network)
    print(f"{args.file}: {args.file.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    caching = actions.add_parser("features")
    for name in ("data", "encoder", "out"):
        caching.add_argument(name, type=Path)
    optimising = actions.add_parser("targets")
    training = actions.add_parser("train")
    _add_training_options(training)
    for name in ("data", "checkpoint_run", "out"):
        optimising.add_argument(name, type=Path)
    optimising.add_argument("--identities", type=int, default=400)
    optimising.add_argument("--batch", type=int, default=16)
    exporting = actions.add_parser("export")
    for name in ("checkpoint", "encoder", "out", "file"):
        exporting.add_argument(name, type=Path)
    exporting.add_argument("--from-state", action="store_true", help="take the average of a run that still goes on")
    readers = "what training.latent_recogniser wrote, or a build's recogniser files: for the finetune to ask"
    exporting.add_argument("--readers", type=Path, nargs="*", default=[], help=readers)
    for action in (optimising, training, exporting):
        _add_making_options(action)
    args = parser.parse_args()
    {"features": features, "targets": targets, "train": train_hypernetwork, "export": export}[args.action](args)


def _add_making_options(action: argparse.ArgumentParser) -> None:
    action.add_argument("--seed", type=int, default=0, help="of the first weights, and of what is seen in which step")
    action.add_argument("--iterations", type=int, default=ITERATIONS, help="k: how often θ is refined")
    action.add_argument("--full-basis", action="store_true", help="no reduction: what no basis can beat at rank 1")
    action.add_argument("--no-identity-vector", action="store_true", help="leave out what a recogniser taught")


def _add_training_options(training: argparse.ArgumentParser) -> None:
    for name in ("data", "checkpoint_run", "out"):
        training.add_argument(name, type=Path)
    training.add_argument("--steps", type=int, default=3000)
    training.add_argument("--batch", type=int, default=24)
    training.add_argument("--lr", type=float, default=1e-3)
    training.add_argument("--identities", type=int, help="learn from the first so many only")
    training.add_argument("--target-steps", type=int, default=0, help="so many steps on the targets first")
    training.add_argument("--recogniser", type=Path, nargs="+", help="what training.latent_recogniser wrote")
    training.add_argument("--faces", type=Path, help="FACES_DIR, needed with --recogniser")
    training.add_argument("--identity-weight", type=float, default=0.1)
    training.add_argument("--drawn", type=int, default=0, help="so many people a step are also drawn from pure noise")
    training.add_argument("--drawn-weight", type=float, default=0.1)
    training.add_argument("--drawn-until", type=float, nargs=2, default=(0.3, 0.9), help="shares of the range")
    training.add_argument("--sface", type=Path, help="SFACE.onnx: drawings are judged by SFace, as pictures")
    training.add_argument("--autoencoder", type=Path, help="autoencoder.safetensors, needed with --sface")
    training.add_argument("--start", type=Path, help="decoder.safetensors of an earlier run")
    training.add_argument("--timesteps", type=float, nargs=2, default=(0.0, 1.0), help="shares of the range")
    training.add_argument("--masked", action="store_true", help="weigh the loss with the face's mask")


if __name__ == "__main__":
    main()
