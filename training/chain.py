"""The whole chain as one command that ends by itself: people, autoencoder, UNet, encoder, hypernetwork, weights.

    python -m training.chain TOOLS OUT --minutes 8 --device cuda        # on a graphics card
    python -m training.chain TOOLS OUT --minutes 3 --tiny                # the same in tiny sizes, to try it

TOOLS holds what nothing here makes: ir/ (the generator's networks), directions.npz, sface.onnx, lite0.pth and
attributes.safetensors (what `training.attributes` learned). Each stage gets its share of the minutes, and is a command
of its own that can be given by hand. A chain that was stopped goes on after the last stage that ended. At the end
OUT/parts holds all weights in files of at most 16 MB: `python -m training.chain --join OUT/parts WEIGHTS`.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save, save_file

from .models import SIZE, VOCABULARY

PART_BYTES = 15_000_000
EMBEDDING = "token_embedding.weight"
SCALES = "|scales"


@dataclass(frozen=True)
class Stage:
    """A command of `training`, and its share of the minutes; those of share 0 take what they take."""

    name: str
    command: list[str]
    share: float = 0.0


def stages(tools: Path, out: Path, device: str, tiny: bool) -> list[Stage]:
    """What is done, in order. Where a stage has a share, `--minutes` and `--whole` are added to its command."""
    people, data, cache = out / "people", out / "data", out / "cache"
    sface, lite0 = str(tools / "sface.onnx"), str(tools / "lite0.pth")
    on, batch = ["--device", device], (lambda large: "2" if tiny else str(large))
    count, features = (12 if tiny else 8000), str(out / "features")
    autoencoder = [str(data), "--sface", sface, "--batch", batch(128), *on]

    def generate(first: int, identities: int) -> list[str]:
        where = [str(tools / "ir"), str(tools / "directions.npz"), sface, str(people)]
        number = ["--first", str(first), "--identities", str(identities)]
        return ["generate", *where, *number, "--batch", batch(32), "--threads", "16", *on]

    def checkpoint(size: int, run: str, start: str | None) -> list[str]:
        begun = ["--weights", str(out / start / "text_to_image.safetensors")] if start else []
        where = [str(data), str(cache), str(out / run), "--autoencoder", str(out / "decoder/autoencoder.safetensors")]
        return ["checkpoint", "train", *where, "--size", str(size), "--batch", batch(512), "--lr", "2e-3", *on, *begun]

    def start(run: str) -> list[str]:
        return ["--weights", str(out / run / "autoencoder.safetensors")]

    return [
        Stage("people", generate(3473, count), 0 if tiny else 0.12),
        Stage("attributes", ["attributes", "none", lite0, str(tools), "--label", str(people), *on]),
        Stage("data", ["faces", str(people), "--out", str(data)]),
        Stage("inner", ["autoencoder", autoencoder[0], str(out / "inner"), *autoencoder[1:], "--inner"], 0.06),
        Stage("whole", ["autoencoder", autoencoder[0], str(out / "whole"), *autoencoder[1:], *start("inner")], 0.12),
        Stage(
            "decoder",
            ["autoencoder", autoencoder[0], str(out / "decoder"), *autoencoder[1:], *start("whole"), "--decoder-only"],
            0.06,
        ),
        Stage(
            "encode", ["checkpoint", "encode", str(data), str(out / "inner/autoencoder.safetensors"), str(cache), *on]
        ),
        Stage("unet-64", checkpoint(64, "unet-64", None), 0.04),
        Stage("unet-96", checkpoint(96, "unet-96", "unet-64"), 0.08),
        Stage("unet", checkpoint(SIZE, "unet", "unet-96"), 0.18),
        Stage(
            "encoder",
            ["encoder", str(data), str(out / "encoder"), "--imagenet", lite0, "--batch", batch(256), *on],
            0.05,
        ),
        Stage("identity", ["latent_identity", str(data), str(cache), str(out / "identity"), "--shifts", *on], 0.03),
        Stage(
            "features", ["hypernetwork", "features", str(data), str(out / "encoder/encoder.safetensors"), features, *on]
        ),
        Stage(
            "hypernetwork",
            [
                "hypernetwork",
                "train",
                str(data),
                str(cache),
                features,
                str(out / "unet/text_to_image.safetensors"),
                str(out / "hypernetwork"),
                "--batch",
                batch(96),
                "--samples",
                batch(64),
                "--identity-net",
                str(out / "identity/latent_identity.safetensors"),
                *on,
            ],
            0.12,
        ),
    ]


def run_stages(todo: list[Stage], out: Path, minutes: float) -> None:
    """Run what has not ended yet; OUT/stages holds a file for each stage that has. Raises CalledProcessError."""
    (out / "stages").mkdir(parents=True, exist_ok=True)
    for stage in todo:
        marker = out / "stages" / stage.name
        if marker.exists():
            continue
        began = time.monotonic()
        ending = ["--minutes", f"{stage.share * minutes:.3f}"] if stage.share else []
        if stage.share and stage.name != "people":
            ending.append("--whole")
        subprocess.run([sys.executable, "-m", f"training.{stage.command[0]}", *stage.command[1:], *ending], check=True)
        marker.touch()
        print(f"{stage.name}: {time.monotonic() - began:.0f} s", flush=True)


def split(files: dict[str, Path], folder: Path, words: torch.Tensor) -> None:
    """Write all tensors of `files` in parts of at most PART_BYTES, each named FILE/KEY: matrices and convolutions in
    eight bits, a scale for each row beside them, everything else in float16. Trainings go on from that.

    Of the token embeddings, most of which no caption has, only the rows of `words` are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part: dict[str, torch.Tensor] = {}
    number, size = 0, 0

    def close() -> None:
        nonlocal part, number, size
        if part:
            (folder / f"part-{number}.safetensors").write_bytes(save(part))
        part, number, size = {}, number + 1, 0

    for name, file in files.items():
        for key, value in load_file(file).items():
            small = _in_eight_bits(value[words.long()] if key.endswith(EMBEDDING) else value)
            nbytes = sum(tensor.nbytes for tensor in small.values())
            if size + nbytes > PART_BYTES:
                close()
            part |= {f"{name}/{key}{ending}": tensor for ending, tensor in small.items()}
            size += nbytes
    part["words"] = words
    close()


def _in_eight_bits(value: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is written for a tensor, by the ending of its name."""
    if not value.is_floating_point():
        return {"": value.contiguous()}
    if value.ndim < 2:
        return {"": value.half().contiguous()}
    largest = value.abs().flatten(1).amax(1).clamp(min=1e-12)
    scale = (largest / 127).view(-1, *[1] * (value.ndim - 1))
    return {"": (value / scale).round().to(torch.int8).contiguous(), SCALES: scale.float()}


def join(folder: Path, out: Path) -> None:
    """Write the files again, as OUT/NAME.safetensors, float32."""
    files: dict[str, dict[str, torch.Tensor]] = {}
    for part in sorted(folder.glob("part-*.safetensors")):
        tensors = load_file(part)
        for key, value in tensors.items():
            if key.endswith(SCALES):
                continue
            name, _, inner = key.partition("/")
            whole = value.float() * tensors[key + SCALES] if key + SCALES in tensors else value
            files.setdefault(name, {})[inner] = whole.float() if whole.is_floating_point() else whole
    words = files.pop("words")[""].long()
    for tensors in files.values():
        for key in [key for key in tensors if key.endswith(EMBEDDING)]:
            rows = torch.zeros(VOCABULARY, tensors[key].shape[1])
            tensors[key] = rows.index_copy(0, words, tensors[key])
    out.mkdir(parents=True, exist_ok=True)
    for name, tensors in files.items():
        save_file(tensors, out / f"{name}.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true", help="few people, small batches: to try the chain")
    parser.add_argument(
        "--join", action="store_true", help="TOOLS is a folder of parts: put the weights together in OUT"
    )
    args = parser.parse_args()
    if args.join:
        join(args.tools, args.out)
        return
    run_stages(stages(args.tools, args.out, args.device, args.tiny), args.out, args.minutes)
    made = {
        "autoencoder": args.out / "decoder/autoencoder.safetensors",
        "text_to_image": args.out / "unet/text_to_image.safetensors",
        "encoder": args.out / "encoder/encoder.safetensors",
        "decoder": args.out / "hypernetwork/decoder.safetensors",
    }
    words = torch.from_numpy(np.unique(np.load(args.out / "cache/tokens.npy")).astype(np.int32))
    split(made, args.out / "parts", words)


if __name__ == "__main__":
    main()
