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
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from hyperdreambooth_ext.hosts.checkpoint import file_sha256
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.encoder import FaceEncoder
from hyperdreambooth_ext.hypernet.file import save_hypernetwork
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork, WeightDecoder
from hyperdreambooth_ext.hypernet.targets import preoptimise
from hyperdreambooth_ext.hypernet.training import Batch, IdentityLoss, training_losses
from hyperdreambooth_ext.lidb.layers import Architecture

from .captions import PHOTO
from .checkpoint import TextToImage
from .encoder import TEACHER_WIDTH
from .faces import FIRST_TRAINING_IDENTITY
from .host import TrainingHost
from .latent_recogniser import LatentRecogniser
from .loop import train

TARGET_BATCH = 32
TRAINED_ON = "3,273 synthetic identities of MobileStyleGAN (FFHQ), 3 photos each, and 11 styles"


@torch.no_grad()
def features(data: Path, encoder: Path, out: Path) -> None:
    """Cache the frozen encoder's features of all photos, float16 [rows, tokens, channels]; other styles get none."""
    rows, images = _rows(data), np.load(data / "images.npy", mmap_mode="r")
    network = FaceEncoder(HypernetworkConfig(Architecture(())), pretrained=False)
    network.load_state_dict(_split(encoder)[0])
    photos = np.array([i for i, row in enumerate(rows) if row["style"] == PHOTO])
    out.mkdir(parents=True, exist_ok=True)
    cached = []
    for part in np.array_split(photos, max(1, len(photos) // 64)):
        batch = torch.from_numpy(images[part]).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
        cached.append(network(batch).half().numpy())
    np.save(out / "features.npy", np.concatenate(cached))
    np.save(out / "photos.npy", photos)
    save_file(_split(encoder)[1], out / "head.safetensors")
    print(f"{len(photos)} photos")


class Sampler:
    """Pairs of two photos of one person from the caches."""

    def __init__(self, data: Path, checkpoint_run: Path, out: Path, identities: int | None) -> None:
        self.rows = _rows(data)
        self.latents = np.load(checkpoint_run / "latents.npy")
        self.features = np.load(out / "features.npy", mmap_mode="r")
        self.head = load_file(out / "head.safetensors")
        self.place = {row: i for i, row in enumerate(np.load(out / "photos.npy"))}
        self.people: dict[int, list[int]] = {}
        for i, row in enumerate(self.rows):
            if row["identity"] >= FIRST_TRAINING_IDENTITY:
                self.people.setdefault(row["identity"], []).append(i)
        self.identities = np.array(sorted(self.people))[:identities]

    def batch(self, rng: np.random.Generator, size: int, people: np.ndarray | None = None) -> Batch:
        people = rng.choice(self.identities, size, replace=False) if people is None else people
        seen = [rng.choice([i for i in self.people[p] if self.rows[i]["style"] == PHOTO]) for p in people]
        shown = [int(rng.choice(self.people[p])) for p in people]
        return Batch(
            torch.from_numpy(np.stack([self.features[self.place[i]] for i in seen])).float(),
            torch.from_numpy(self.latents[shown]).float(),
            [prompt_for(self.rows[i]["style"], rng) for i in shown],
        )


def known_identities(faces: Path) -> dict[int, torch.Tensor]:
    """SFace's mean feature of each person, a unit vector [128], from FACES_DIR."""
    features = np.load(faces / "sface.npy").astype(np.float32)
    people: dict[int, list[np.ndarray]] = {}
    for line, feature in zip((faces / "photos.jsonl").read_text().splitlines(), features, strict=True):
        people.setdefault(json.loads(line)["identity"], []).append(feature)
    return {who: F.normalize(torch.from_numpy(np.mean(of, axis=0)), dim=0) for who, of in people.items()}


def prompt_for(style: str, rng: np.random.Generator) -> str:
    """The prompt of the product, in the style that the picture has."""
    if style == PHOTO:
        return "a sks face"
    article = "an" if style[0] in "aeiou" else "a"
    return f"a sks face, {style}" if rng.random() < 0.5 else f"{article} {style} of a sks face"


def _split(encoder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The encoder's weights and those of the head that names an identity, from training.encoder's file."""
    weights = load_file(encoder)
    head = {key.removeprefix("head."): value for key, value in weights.items() if key.startswith("head.")}
    return {k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")}, head


def _config(host: TrainingHost) -> HypernetworkConfig:
    return HypernetworkConfig(Architecture.of(host.linears()), identity_width=TEACHER_WIDTH)


def _start(checkpoint_run: Path, sampler: Sampler) -> tuple[TrainingHost, WeightDecoder]:
    model = TextToImage()
    model.load_state_dict(load_file(checkpoint_run / "text_to_image.safetensors"), strict=False)
    host = TrainingHost(model)
    torch.manual_seed(0)
    decoder = WeightDecoder(_config(host), sampler.features.shape[-1])
    decoder.whiten(torch.from_numpy(sampler.features[::10].copy()).float())
    decoder.identity_weight.copy_(sampler.head["weight"])
    decoder.identity_bias.copy_(sampler.head["bias"])
    return host, decoder


def targets(data: Path, checkpoint_run: Path, out: Path, identities: int, batch: int) -> None:
    """Pre-optimise LiDBs for the first `identities` people, in shards of `batch`; shards that exist are kept."""
    sampler = Sampler(data, checkpoint_run, out, identities)
    host, decoder = _start(checkpoint_run, sampler)
    with host.frozen():
        for first in range(0, identities, batch):
            file = out / f"targets-{first:05d}.safetensors"
            if file.exists():
                continue
            people = sampler.identities[first : first + batch]
            photos = [[i for i in sampler.people[p] if sampler.rows[i]["style"] == PHOTO] for p in people]

            def latents_at(step: int, photos=photos) -> torch.Tensor:
                return torch.from_numpy(sampler.latents[[of[step % len(of)] for of in photos]]).float()

            generator = torch.Generator().manual_seed(first)
            theta = preoptimise(host, decoder, latents_at, "a sks face", generator)
            save_file({"theta": theta, "people": torch.from_numpy(people)}, file)
            print(f"{first + len(people)} people", flush=True)


def train_hypernetwork(
    data: Path,
    checkpoint_run: Path,
    out: Path,
    steps: int,
    batch: int,
    lr: float,
    identities: int | None,
    target_steps: int,
    recogniser: Path | None,
    faces: Path | None,
    identity_weight: float,
) -> None:
    """First `target_steps` on the targets alone, then on the diffusion loss and, with a recogniser, the identity loss.

    Resumes from OUT/state.pt.
    """
    sampler = Sampler(data, checkpoint_run, out, identities)
    identity = IdentityLoss(LatentRecogniser.load(recogniser), identity_weight) if recogniser else None
    known = known_identities(faces) if faces else None
    host, decoder = _start(checkpoint_run, sampler)
    shards = [load_file(file) for file in sorted(out.glob("targets-*.safetensors"))] if target_steps else []
    theta_of = {int(p): theta for shard in shards for p, theta in zip(shard["people"], shard["theta"], strict=True)}
    taught = np.array(sorted(theta_of))

    def losses(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return lesson_losses(step, rng)

    def lesson_losses(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        if step >= target_steps:
            people = rng.choice(sampler.identities, batch, replace=False)
            lesson = sampler.batch(rng, batch, people)
            if known is not None:
                lesson = replace(lesson, identities=torch.stack([known[int(p)] for p in people]))
            return training_losses(host, decoder, lesson, generator, identity=identity)
        people = rng.choice(taught, TARGET_BATCH, replace=False)
        lesson = sampler.batch(rng, TARGET_BATCH, people)
        lesson = replace(lesson, targets=torch.stack([theta_of[int(p)] for p in people]))
        return training_losses(host, decoder, lesson, generator, alpha=0.0, beta=1.0)

    with host.frozen():
        average = train(out, decoder, losses, steps=steps, lr=lr)
    save_file({k: v.contiguous() for k, v in average.state_dict().items()}, out / "decoder.safetensors")


def export(checkpoint: Path, encoder: Path, out: Path, file: Path, from_state: bool) -> None:
    """Write the hypernetwork file for the product, tied to CHECKPOINT's hash."""
    config = _config(TrainingHost(TextToImage()))
    config = replace(
        config, checkpoint=checkpoint.stem, checkpoint_hash=file_sha256(checkpoint)[:10], trained_on=TRAINED_ON
    )
    network = Hypernetwork(config)
    network.encoder.load_state_dict(_split(encoder)[0])
    if from_state:
        average = torch.load(out / "state.pt", weights_only=True)["average"]
        decoder = {key.removeprefix("module."): v for key, v in average.items() if key.startswith("module.")}
    else:
        decoder = load_file(out / "decoder.safetensors")
    network.decoder.load_state_dict(decoder)
    save_hypernetwork(file, network)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


def _rows(data: Path) -> list[dict]:
    return [json.loads(line) for line in (data / "index.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    caching = actions.add_parser("features")
    for name in ("data", "encoder", "out"):
        caching.add_argument(name, type=Path)
    training = actions.add_parser("train")
    for name in ("data", "checkpoint_run", "out"):
        training.add_argument(name, type=Path)
    training.add_argument("--steps", type=int, default=3000)
    training.add_argument("--batch", type=int, default=24)
    training.add_argument("--lr", type=float, default=1e-3)
    training.add_argument("--identities", type=int, help="learn from the first so many only")
    training.add_argument("--target-steps", type=int, default=0, help="so many steps on the targets first")
    training.add_argument("--recogniser", type=Path, help="what training.latent_recogniser wrote: the identity loss")
    training.add_argument("--faces", type=Path, help="FACES_DIR, with --recogniser")
    training.add_argument("--identity-weight", type=float, default=0.1)
    optimising = actions.add_parser("targets")
    for name in ("data", "checkpoint_run", "out"):
        optimising.add_argument(name, type=Path)
    optimising.add_argument("--identities", type=int, default=400)
    optimising.add_argument("--batch", type=int, default=16)
    exporting = actions.add_parser("export")
    for name in ("checkpoint", "encoder", "out", "file"):
        exporting.add_argument(name, type=Path)
    exporting.add_argument("--from-state", action="store_true", help="take the average of a run that still goes on")
    args = vars(parser.parse_args())
    {"features": features, "targets": targets, "train": train_hypernetwork, "export": export}[args.pop("action")](
        **args
    )


if __name__ == "__main__":
    main()
