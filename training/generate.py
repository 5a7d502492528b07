"""Make more synthetic people: up to three photos each, out of the face generator MobileStyleGAN.

    python -m training.generate IR DIRECTIONS.npz SFACE.onnx OUT [--first 3473] [--identities 3500] [--photos 3]

IR is the folder of the package random-face's network files, DIRECTIONS.npz its edit directions in W. On a processor
OpenVINO runs them (several times faster than torch), on a graphics card torch does, in batches. Writes
OUT/photos/NNNNN_K.jpg of 256 px and OUT/photos.jsonl, one line a photo with box, landmarks, SFace's features and what
was asked of it; a run that is stopped goes on. Neutral faces are as frequent as smiling ones: the generator smiles.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from hyperdreambooth_ext.images.face import find_faces

from .photos import FRAME

PSI = (0.8, 1.0)
# Standard deviations along each direction, from and to: of the first photo, and of the two others.
FIRST = {"smile": (-2.5, 0.5), "yaw": (-0.4, 0.4), "pitch": (-0.4, 0.4), "light": (-1.0, 1.0), "jawOpen": (-0.5, 0.0)}
OTHERS = {"smile": (-2.5, 1.5), "yaw": (-1.6, 1.6), "pitch": (-1.0, 1.0), "light": (-1.5, 1.5), "jawOpen": (-0.5, 0.7)}
SAME_PERSON = 0.5
"""SFace's cosine to the first photo that a photo of the same person must reach (its own threshold is 0.363)."""
PHOTOS = 3

Synthesize = Callable[[np.ndarray], np.ndarray]
"""Styles float32 [B, 512] -> frames uint8 [B, 256, 256, 3], RGB."""


@dataclass(frozen=True)
class Generator:
    """Noise [B, 512] -> styles [B, 512], whose mean over many is `mean`, and styles -> frames."""

    mapping: Callable[[np.ndarray], np.ndarray]
    synthesize: Synthesize
    mean: np.ndarray


def on_processor(ir: Path, threads: int) -> Generator:
    """By OpenVINO."""
    import openvino

    # Where a processor has bfloat16, OpenVINO would take it by itself: longer here, and other colors.
    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    mapping, synthesis = (core.compile_model(ir / f"{n}Network.xml", "CPU", options) for n in ("Mapping", "Synthesis"))

    def styles(noise: np.ndarray) -> np.ndarray:
        return np.concatenate([mapping(z[None])[0] for z in noise])

    def frames(w: np.ndarray) -> np.ndarray:
        large = np.concatenate([synthesis(one[None])[0] for one in w]).transpose(0, 2, 3, 1)
        return np.stack([cv2.resize(_bytes(one), (FRAME, FRAME), interpolation=cv2.INTER_AREA) for one in large])

    return Generator(styles, frames, _mean_style(styles, 2048))


def on_card(ir: Path, device: torch.device) -> Generator:
    """By torch, in 16 bits."""
    from .mobilestylegan import Generator as MobileStyleGan

    network = MobileStyleGan(ir).to(device).eval()

    @torch.no_grad()
    def styles(noise: np.ndarray) -> np.ndarray:
        return network.mapping(torch.from_numpy(noise).to(device)).cpu().numpy()

    @torch.no_grad()
    def frames(w: np.ndarray) -> np.ndarray:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            large = network.synthesize(torch.from_numpy(w.astype(np.float32)).to(device)).float()
        small = torch.nn.functional.interpolate(large, (FRAME, FRAME), mode="area")
        return _bytes(small.permute(0, 2, 3, 1).cpu().numpy())

    return Generator(styles, frames, _mean_style(styles, 8192))


def _bytes(pictures: np.ndarray) -> np.ndarray:
    return ((pictures + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


def _mean_style(styles: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((count, 512)).astype(np.float32)
    return styles(noise).mean(0, keepdims=True)


def styles_of(
    identity: int, generator: Generator, directions: dict[str, np.ndarray], photos: int
) -> tuple[np.ndarray, list[dict]]:
    """The styles [photos, 512] of one person's first photos, and how far each was moved along each direction."""
    rng = np.random.default_rng((2026, identity))
    noise = rng.standard_normal((1, 512)).astype(np.float32)
    face = generator.mean + rng.uniform(*PSI) * (generator.mapping(noise) - generator.mean)
    reaches = (FIRST, *[OTHERS] * (PHOTOS - 1))[:photos]
    moved = [{k: round(float(rng.uniform(*r)), 2) for k, r in of.items()} for of in reaches]
    styles = [face[0] + sum(by * directions[name] for name, by in of.items()) for of in moved]
    return np.stack(styles).astype(np.float32), moved


class Judge:
    """Finds the face of a photo, and says by SFace who it is; one for each thread."""

    def __init__(self, sface: Path) -> None:
        self.recognizer = cv2.FaceRecognizerSF.create(str(sface), "")

    def __call__(self, frame: np.ndarray) -> dict | None:
        """Box, landmarks and features, or None where there is not exactly one face."""
        faces = find_faces(frame)
        if len(faces) != 1:
            return None
        row = np.array([*faces[0].box, *faces[0].landmarks.ravel(), faces[0].score], np.float32)
        crop = self.recognizer.alignCrop(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), row[None])
        features = self.recognizer.feature(crop)[0]
        return {
            "box": [round(float(x), 1) for x in faces[0].box],
            "landmarks": [round(float(x), 1) for x in faces[0].landmarks.ravel()],
            "sface": [round(float(x), 3) for x in features / np.linalg.norm(features)],
        }


def kept_photos(
    identity: int, frames: np.ndarray, moved: list[dict], judge: Judge
) -> Iterator[tuple[dict, np.ndarray]]:
    """The photos that show exactly one face, and that of the first; none where the first does not."""
    first = None
    for number, (frame, of) in enumerate(zip(frames, moved, strict=True)):
        found = judge(frame)
        if found is None and number == 0:
            return
        if found is None:
            continue
        features = np.array(found["sface"])
        first = features if first is None else first
        alike = round(float(features @ first), 3)
        if alike >= SAME_PERSON:
            line = {"photo": f"{identity:05d}_{number}.jpg", "identity": identity, "sface_to_first": alike, "moved": of}
            yield line | found, frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("ir", "directions", "sface", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--first", type=int, default=3473, help="number of the first identity")
    parser.add_argument("--identities", type=int, default=3500)
    parser.add_argument("--photos", type=int, choices=range(1, PHOTOS + 1), default=PHOTOS, help="of each person")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--batch", type=int, default=1, help="people at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    device = torch.device(args.device)
    generator = on_processor(args.ir, args.threads) if device.type == "cpu" else on_card(args.ir, device)
    directions = {k: v.ravel() for k, v in np.load(args.directions).items() if k != "mu"}
    (args.out / "photos").mkdir(parents=True, exist_ok=True)
    progress = args.out / "done.txt"
    first = int(progress.read_text()) if progress.exists() else args.first
    ends, last = time.monotonic() + 60 * args.minutes, args.first + args.identities
    with ThreadPoolExecutor(args.threads) as pool, open(args.out / "photos.jsonl", "a", encoding="utf-8") as lines:
        while first < last and time.monotonic() < ends:
            people = range(first, min(first + args.batch, last))
            _make(people, generator, directions, args, pool, lines)
            first = people[-1] + 1
            progress.write_text(str(first))
    print(f"{args.out}: identities {args.first} to {first - 1}")


def _make(people: range, generator: Generator, directions, args: argparse.Namespace, pool, lines) -> None:
    planned = [styles_of(identity, generator, directions, args.photos) for identity in people]
    frames = generator.synthesize(np.concatenate([styles for styles, _ in planned]))
    frames = frames.reshape(len(people), args.photos, FRAME, FRAME, 3)

    def keep(i: int) -> list[tuple[dict, np.ndarray]]:
        return list(kept_photos(people[i], frames[i], planned[i][1], Judge(args.sface)))

    for photos in pool.map(keep, range(len(people))):
        for line, frame in photos:
            file = args.out / "photos" / line["photo"]
            cv2.imwrite(str(file), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
            lines.write(json.dumps(line) + "\n")
    lines.flush()


if __name__ == "__main__":
    main()
