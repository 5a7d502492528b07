"""An independent classifier of styles: tells a pencil sketch from an oil painting, whoever is on it.

    python -m benchmarks.styles DATA_DIR benchmarks/style_classifier.safetensors [--steps 1500]

DATA_DIR is what `training.faces` wrote. The classifier sees training identities only and shares nothing with the
checkpoint that it judges.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from training.styles import STYLES as TRAINED_STYLES

SIDE = 112
CLASSIFIER = Path(__file__).with_name("style_classifier.safetensors")
PHOTO = "photo"
STYLES = tuple(TRAINED_STYLES)
CLASSES = (PHOTO, *STYLES)


class StyleClassifier(nn.Module):
    """Pictures float32 [B, 3, H, W] in [-1, 1] -> logits [B, 12] over CLASSES."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, wider in ((3, 24), (24, 48), (48, 96), (96, 128)):
            layers += [nn.Conv2d(channels, wider, 3, 2, 1), nn.GroupNorm(8, wider), nn.SiLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(128, len(CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = F.interpolate(images, (SIDE, SIDE), mode="area")
        return self.head(self.body(images).mean((2, 3)))

    @torch.no_grad()
    def accuracy(self, pictures: list[np.ndarray], style: str) -> float:
        """The share of RGB uint8 pictures that are seen as `style`."""
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
        return float((self(images).argmax(1) == CLASSES.index(style)).float().mean())


def load_classifier(file: Path) -> StyleClassifier:
    """The trained classifier, ready to judge."""
    classifier = StyleClassifier()
    classifier.load_state_dict(load_file(file))
    return classifier.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    args = parser.parse_args()
    rows = [json.loads(line) for line in (args.data / "index.jsonl").read_text().splitlines()]
    images = np.load(args.data / "images.npy", mmap_mode="r")
    by_class = [[i for i, r in enumerate(rows) if r["style"] == c and r["identity"] >= 200] for c in CLASSES]
    held_out = [members[-40:] for members in by_class]
    torch.manual_seed(0)
    classifier, rng = StyleClassifier(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3)
    for step in range(args.steps):
        labels = rng.integers(0, len(CLASSES), 48)
        chosen = [by_class[label][rng.integers(0, len(by_class[label]) - 40)] for label in labels]
        batch = (
            torch.from_numpy(np.stack([images[i] for i in chosen])).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
        )
        # What a generator gets slightly wrong must not decide: softness, noise and light vary.
        small = F.interpolate(batch, scale_factor=float(rng.uniform(0.7, 1)), mode="area")
        batch = F.interpolate(small, (128, 128), mode="bilinear") + torch.randn(batch.shape) * rng.uniform(0, 0.1)
        loss = F.cross_entropy(classifier(batch), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(step + 1, round(loss.item(), 3), flush=True)
    classifier.eval()
    scores = {c: classifier.accuracy([images[i] for i in held_out[k]], c) for k, c in enumerate(CLASSES)}
    print(json.dumps(scores), "mean", round(float(np.mean(list(scores.values()))), 3))
    save_file({k: v.contiguous() for k, v in classifier.state_dict().items()}, args.file)


if __name__ == "__main__":
    main()
