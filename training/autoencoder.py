"""Train the KL-f8 autoencoder of the bundled checkpoint.

    python -m training.autoencoder DATA INNER --sface SFACE.onnx --inner [--steps 8000] [--minutes 120]
    python -m training.autoencoder DATA OUT --sface SFACE.onnx --weights INNER/autoencoder.safetensors

    python -m training.autoencoder DATA OUT2 --sface SFACE.onnx --weights OUT/autoencoder.safetensors --decoder-only
    torchrun --nproc-per-node 2 -m training.autoencoder DATA OUT …

The first run trains all but the outermost level, on pictures of half the size, in two fifths of the time a step. From
then on the latents stay, so that the UNet can be trained on them meanwhile: the second run teaches the decoder the full
size, and the encoder's outermost level to give the same latents; the last sharpens the decoder with a discriminator.

What is asked of it, beside likeness to the picture: colors (the first three channels begin as the picture's thumbnail,
and chroma counts at an eighth of the size), latents that can be scaled (EQ-VAE, arXiv 2502.09509: a smaller latent
decodes to a smaller picture), a decoder that forgives latents which are not quite right, and faces that SFace takes for
the same person.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from hyperdreambooth_ext.pretrain.processes import Processes

from .convolutions import speed_up_convolutions, with_channels_last
from .discriminator import Adversary
from .loop import Run, precision_of, train
from .models import SIZE, Autoencoder, InnerAutoencoder, OpenedAutoencoder
from .photos import FRAME, Photos, resized
from .sface import SFace
from .shared_memory import started_processes

CROP = 64
FACE_CROP = 128
FACE_EVERY = 4
SIDES = ((192, 0.5), (256, 0.2), (160, 0.15), (128, 0.15))
"""How wide a frame is made before a crop is taken, and how often."""
SMALLER = (4, 5, 6)
"""Of latents of 8 x 8, what they are scaled to in half of the steps."""
LATENT_NOISE = 0.2


Model = Autoencoder | InnerAutoencoder | OpenedAutoencoder


@dataclass(frozen=True)
class Weights:
    """How much each part of the loss counts."""

    perceptual: float = 0.5
    chroma: float = 1.0
    thumbnail: float = 0.05
    thumbnail_at_first: float = 1.0
    kl: float = 1e-4
    identity: float = 0.2
    encoder: float = 0.5
    adversarial: float = 0.1


class Lpips(nn.Module):
    """Shift-tolerant LPIPS (arXiv 2207.13686) of pictures in [-1, 1], frozen: one number a pair."""

    def __init__(self, net: str = "alex") -> None:
        super().__init__()
        from stlpips_pytorch import stlpips

        self.network = stlpips.LPIPS(net=net, variant="shift_tolerant", verbose=False)
        self.requires_grad_(False)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.network(a, b).flatten()


def chroma(pictures: torch.Tensor) -> torch.Tensor:
    """What is left of RGB [B, 3, H, W] when the brightness is taken off, at an eighth of the size."""
    small = F.avg_pool2d(pictures, 8)
    return small - small.mean(1, keepdim=True)


class AutoencoderLoss:
    """The losses of a step, from DATA's photos."""

    def __init__(
        self, photos: Photos, model: Model, sface: Path, batch: int, weights: Weights,
        adversary: Adversary | None = None, processes: Processes = Processes(),
    ) -> None:  # fmt: skip
        self.photos, self.model, self.weights = photos, model, weights
        self.adversary, self.processes = adversary, processes
        own = processes.slice_of(batch)
        self.batch = own.stop - own.start
        # A latent is eight pixels wide, or four of a picture of half the size.
        self.pixels = 4 if isinstance(model, InnerAutoencoder) else 8
        self.lpips, self.sface = Lpips().to(photos.device), SFace(sface).to(photos.device)

    def __call__(self, step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        sides, shares = zip(*SIDES, strict=True)
        side = int(rng.choice(sides, p=shares))
        scaled = int(rng.choice(SMALLER)) if rng.random() < 0.5 else None
        # The sizes are the same in all processes, so that none waits; what is seen is not.
        rng = np.random.default_rng((step, self.processes.rank))
        torch.manual_seed(step * self.processes.count + self.processes.rank)
        if step % FACE_EVERY == FACE_EVERY - 1:
            return self._of_faces(step, rng)
        images = self.photos.crops(rng.choice(self.photos.trained, self.batch), rng, CROP, side)
        images = resized(images, CROP * self.pixels // 8)
        return self._losses(step, self._colored(images, rng), rng, scaled)[0]

    def _of_faces(self, step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Faces instead of crops, a fourth as many, which SFace shall take for the same people."""
        chosen = rng.choice(self.photos.trained, max(1, self.batch // 4))
        corner = (FRAME - FRAME * FACE_CROP // SIZE) // 2
        frames = self.photos.pictures(chosen)
        side = FRAME - 2 * corner
        size = FACE_CROP * self.pixels // 8
        images = resized(frames[..., corner + 10 : corner + 10 + side, corner : corner + side], size)
        landmarks = self.photos.landmarks[torch.from_numpy(chosen)] - torch.tensor(
            [corner, corner + 10], device=frames.device
        )
        losses, pictures = self._losses(step, images, rng, None)
        landmarks = landmarks * (size / side)
        unlike = 1 - (self.sface(pictures, landmarks) * self.sface(images, landmarks).detach()).sum(-1).mean()
        return losses | {"identity": unlike, "loss": losses["loss"] + self.weights.identity * unlike}

    def _losses(self, step: int, images: torch.Tensor, rng: np.random.Generator, scaled: int | None):
        mean, logvar = (moments.float() for moments in self.model.moments(images))
        latents = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        if rng.random() < 0.5:
            latents = latents + LATENT_NOISE * float(rng.random()) * torch.randn_like(latents)
        wanted = images
        if scaled is not None:
            latents = F.interpolate(latents, (scaled, scaled), mode="bilinear", antialias=True)
            wanted = resized(images, scaled * self.pixels)
        pictures = self.model.decode(latents).float()
        weights, start = self.weights, max(0.0, 1 - step / 2000)
        parts = {
            "l1": F.l1_loss(pictures, wanted),
            "lpips": self._perceptual(pictures, wanted),
            "chroma": F.l1_loss(chroma(pictures), chroma(wanted)),
            "thumbnail": F.mse_loss(mean[:, :3], F.avg_pool2d(images, self.pixels)),
            "kl": 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean(),
        }
        thumbnail = weights.thumbnail + start * (weights.thumbnail_at_first - weights.thumbnail)
        loss = (
            parts["l1"] + weights.perceptual * parts["lpips"] + weights.chroma * parts["chroma"]
            + thumbnail * parts["thumbnail"] + weights.kl * parts["kl"]
        )  # fmt: skip
        if isinstance(self.model, OpenedAutoencoder) and scaled is None:
            parts["encoder"] = self.model.encoder_error(images)
            loss = loss + weights.encoder * parts["encoder"]
        if self.adversary is not None and scaled is None:
            parts["adversarial"] = self.adversary.loss(pictures, wanted)
            loss = loss + weights.adversarial * parts["adversarial"]
        return parts | {"loss": loss}, pictures

    def _perceptual(self, pictures: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        if pictures.shape[-1] < CROP:
            pictures, wanted = (F.interpolate(p, (CROP, CROP), mode="bilinear") for p in (pictures, wanted))
        return self.lpips(pictures, wanted).mean()

    def _colored(self, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """A third of the crops in other colors: walls and clothes come in all of them, faces do not."""
        count = len(images)
        mix = torch.eye(3).repeat(count, 1, 1)
        for i in np.flatnonzero(rng.random(count) < 0.33):
            mix[i] = mix[i][torch.from_numpy(rng.permutation(3))]
            mix[i] = torch.lerp(mix[i], torch.full((3, 3), 1 / 3), float(rng.uniform(-0.6, 0.6)))
        # As a sum and no product of matrices, which would be rounded in half precision.
        return (mix.to(images)[..., None, None] * images[:, None]).sum(2).clamp(-1, 1)


def _model(args: argparse.Namespace) -> Model:
    """What this run trains."""
    whole = Autoencoder()
    if args.weights:
        whole.load(args.weights)
    if args.inner:
        return InnerAutoencoder(whole)
    if args.decoder_only:
        whole.encoder.requires_grad_(False)
        whole.quant_conv.requires_grad_(False)
        return whole
    return OpenedAutoencoder(InnerAutoencoder(whole)) if args.weights else whole


def _is_adamw(name: str) -> bool:
    return "conv_in" in name or "conv_out" in name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sface", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=30000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of this call; the next one goes on")
    parser.add_argument("--whole", action="store_true", help="the learning rate falls before the minutes end")
    parser.add_argument("--batch", type=int, default=8, help="crops of 64 px a step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--inner", action="store_true", help="all but the outermost level")
    parser.add_argument("--decoder-only", action="store_true", help="keep the latents, sharpen the pictures")
    parser.add_argument("--weights", type=Path, help="autoencoder.safetensors of the run before")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    model = _model(args).to(device)
    speed_up_convolutions(model) if precision_of(device) == "fp32" else with_channels_last(model)
    processes = started_processes(device)
    adversary = Adversary(device, processes) if args.decoder_only else None
    losses = AutoencoderLoss(Photos(args.data, device), model, args.sface, args.batch, Weights(), adversary, processes)
    run = Run(args.steps, args.lr, args.minutes, args.whole, precision=precision_of(device))
    average = train(args.out, model, losses, run, adversary, is_adamw=_is_adamw, processes=processes)
    trained = average if isinstance(average, Autoencoder) else average.whole
    if processes.first:
        save_file({k: v.contiguous() for k, v in trained.state_dict().items()}, args.out / "autoencoder.safetensors")


if __name__ == "__main__":
    main()
