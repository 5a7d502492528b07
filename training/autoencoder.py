"""Train the KL-f8 autoencoder of the embedded checkpoint on faces alone.

    python -m training.autoencoder DATA_DIR OUT_DIR [--steps 6000] [--sface FILE.onnx] [--decoder-only]

DATA_DIR is what `training.faces` wrote. Every other step sees whole aligned faces instead of crops when --sface names
the recogniser SFace; its features are then a perceptual loss, for what a latent must keep is who this is.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from .faces import FIRST_TRAINING_IDENTITY
from .loop import train
from .models import Autoencoder

# The side of the crops that SFace was trained on.
SFACE_SIZE = 112


class Data:
    def __init__(self, folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.rows = np.array([i for i, row in enumerate(rows) if row["identity"] >= FIRST_TRAINING_IDENTITY])
        self.photos = np.array([i for i in self.rows if rows[i]["style"] == "photo"])

    def crops(self, rng: np.random.Generator, batch: int, size: int) -> torch.Tensor:
        """Random crops as float32 [batch, 3, size, size] in [-1, 1]."""
        whole = self.images.shape[1]
        chosen = rng.choice(self.rows if size < whole else self.photos, batch)
        offsets = rng.integers(0, whole - size + 1, (batch, 2))
        crops = [self.images[i, y : y + size, x : x + size] for i, (y, x) in zip(chosen, offsets, strict=True)]
        # Contiguous: on the CPU, bf16 convolutions are three times slower on channels-last strides.
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


class SFaceLoss(nn.Module):
    """1 - cosine of SFace's features between two batches of aligned crops in [-1, 1]."""

    def __init__(self, onnx_file: Path) -> None:
        super().__init__()
        from .sface import load_sface

        self.network = load_sface(onnx_file)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = self._features(b)
        return (1 - F.cosine_similarity(self._features(a).float(), target.float())).mean()

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        images = F.interpolate(images, (SFACE_SIZE, SFACE_SIZE), mode="bilinear", antialias=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.network((images + 1) * 127.5)


def gradient_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """L1 distance of the differences between neighbouring pixels: keeps edges sharp."""
    difference = a - b
    return difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=32, help="crops of 64 px a step; whole faces count fourfold")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--sface", type=Path)
    parser.add_argument("--decoder-only", action="store_true", help="keep the latent space, improve the pictures")
    parser.add_argument("--start", type=Path, help="autoencoder.safetensors to go on from")
    args = parser.parse_args()
    data, model = Data(args.data), Autoencoder()
    torch.manual_seed(0)
    if args.start:
        model.load(args.start)
    if args.decoder_only:
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    identity = SFaceLoss(args.sface) if args.sface else None

    def losses(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        whole = identity is not None and step % 2 == 1
        images = data.crops(rng, args.batch // 4 if whole else args.batch, 128 if whole else 64)
        torch.manual_seed(step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pictures, mean, logvar = model(images)
        pictures, mean, logvar = pictures.float(), mean.float(), logvar.float()
        l1, edges = F.l1_loss(pictures, images), gradient_loss(pictures, images)
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        found = {
            "loss": l1 + edges + 1e-4 * kl,
            "l1": l1,
            "edges": edges,
            "kl": kl,
            "mse": F.mse_loss(pictures, images),
        }
        if whole:
            found["identity"] = identity(pictures, images)
            found["loss"] = found["loss"] + 0.1 * found["identity"]
        return found

    average = train(args.out, model, losses, steps=args.steps, lr=args.lr)
    save_file({k: v.contiguous() for k, v in average.state_dict().items()}, args.out / "autoencoder.safetensors")


if __name__ == "__main__":
    main()
