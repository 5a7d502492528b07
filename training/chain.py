"""The whole chain as one command that ends by itself: people, autoencoder, UNet, encoder, hypernetwork, weights.

    python -m training.chain TOOLS OUT --minutes 8 --device cuda        # on a graphics card
    python -m training.chain TOOLS OUT --minutes 3 --tiny                # the same in tiny sizes, to try it

TOOLS holds what nothing here makes: ir/ (the generator's networks), directions.npz, sface.onnx, lite0.pth and
attributes.safetensors (what `training.attributes` learned). Each stage gets its share of the minutes, and is a command
of its own that can be given by hand. A chain that was stopped goes on after the last stage that ended. At the end
OUT/parts holds all weights in files of at most 16 MB: `python -m training.parts join OUT/parts WEIGHTS`.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .checkpoint import NOISES
from .models import SIZE
from .parts import split, words_of


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
    on, batch = ["--device", device], (lambda large, small=2: str(small if tiny else large))
    count, features = (12 if tiny else 8000), str(out / "features")
    autoencoder = [str(data), "--sface", sface, "--batch", batch(128), *on]

    def generate(first: int, identities: int) -> list[str]:
        where = [str(tools / "ir"), str(tools / "directions.npz"), sface, str(people)]
        number = ["--first", str(first), "--identities", str(identities)]
        return ["generate", *where, *number, "--batch", batch(32), "--threads", "16", *on]

    def checkpoint(size: int, run: str, start: str | None) -> list[str]:
        begun = ["--weights", str(out / start / "text_to_image.safetensors")] if start else []
        where = [str(data), str(cache), str(out / run), "--autoencoder", str(out / "decoder/autoencoder.safetensors")]
        return [
            "checkpoint",
            "train",
            *where,
            "--size",
            str(size),
            "--batch",
            batch(512, NOISES),
            "--lr",
            "2e-3",
            *on,
            *begun,
        ]

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
        Stage(
            "identity",
            ["latent_identity", str(data), str(cache), str(out / "identity"), "--shifts", "--batch", batch(64), *on],
            0.03,
        ),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true", help="few people, small batches: to try the chain")
    args = parser.parse_args()
    run_stages(stages(args.tools, args.out, args.device, args.tiny), args.out, args.minutes)
    made = {
        "autoencoder": args.out / "decoder/autoencoder.safetensors",
        "text_to_image": args.out / "unet/text_to_image.safetensors",
        "encoder": args.out / "encoder/encoder.safetensors",
        "decoder": args.out / "hypernetwork/decoder.safetensors",
    }
    split(made, args.out / "parts", words_of(args.out / "cache/tokens.npy"))


if __name__ == "__main__":
    main()
