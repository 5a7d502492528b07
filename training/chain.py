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
from collections.abc import Sequence
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


@dataclass(frozen=True)
class Chain:
    """What is done, in order. Where a stage has a share, `--minutes` and `--whole` are added to its command."""

    tools: Path
    out: Path
    device: str
    tiny: bool

    def stages(self) -> list[Stage]:
        """All of them."""
        return [*self._pictures(), *self._autoencoder(), *self._text_to_image(), *self._hypernetwork()]

    def _pictures(self) -> list[Stage]:
        people, lite0 = self.out / "people", self.tools / "lite0.pth"
        made_by = [self.tools / "ir", self.tools / "directions.npz", self.tools / "sface.onnx"]
        number = ["--first", 3473, "--identities", 12 if self.tiny else 8000]
        return [
            self._stage(
                "people",
                ["generate", *made_by, people, *number, *self._batch(32), "--threads", 16],
                0 if self.tiny else 0.12,
            ),
            self._stage("attributes", ["attributes", "none", lite0, self.tools, "--label", people]),
            Stage("data", _words(["faces", people, "--out", self.data])),
        ]

    def _autoencoder(self) -> list[Stage]:
        def trained(name: str, *options: object, share: float) -> Stage:
            always = ["--sface", self.tools / "sface.onnx", *self._batch(128)]
            return self._stage(name, ["autoencoder", self.data, self.out / name, *always, *options], share)

        inner, whole = (self.out / name / "autoencoder.safetensors" for name in ("inner", "whole"))
        return [
            trained("inner", "--inner", share=0.06),
            trained("whole", "--weights", inner, share=0.12),
            trained("decoder", "--weights", whole, "--decoder-only", share=0.06),
        ]

    def _text_to_image(self) -> list[Stage]:
        decoder = self.out / "decoder/autoencoder.safetensors"

        def trained(name: str, size: int, share: float, start: str = "") -> Stage:
            begun = ["--weights", self.out / start / "text_to_image.safetensors"] if start else []
            where = ["train", self.data, self.cache, self.out / name, "--autoencoder", decoder]
            options = ["--size", size, *self._batch(512, NOISES), "--lr", "2e-3", *begun]
            return self._stage(name, ["checkpoint", *where, *options], share)

        inner = self.out / "inner/autoencoder.safetensors"
        return [
            self._stage("encode", ["checkpoint", "encode", self.data, inner, self.cache]),
            trained("unet-64", 64, 0.04),
            trained("unet-96", 96, 0.08, "unet-64"),
            trained("unet", SIZE, 0.18, "unet-96"),
        ]

    def _hypernetwork(self) -> list[Stage]:
        out, features = self.out, self.out / "features"
        imagenet, identity_net = self.tools / "lite0.pth", out / "identity/latent_identity.safetensors"
        seen = [self.data, self.cache, features, out / "unet/text_to_image.safetensors", out / "hypernetwork"]
        samples = ["--samples", 2 if self.tiny else 64, "--identity-net", identity_net]
        return [
            self._stage(
                "encoder", ["encoder", self.data, out / "encoder", "--imagenet", imagenet, *self._batch(256)], 0.05
            ),
            self._stage(
                "identity",
                ["latent_identity", self.data, self.cache, out / "identity", "--shifts", *self._batch(64)],
                0.03,
            ),
            self._stage(
                "features", ["hypernetwork", "features", self.data, out / "encoder/encoder.safetensors", features]
            ),
            self._stage("hypernetwork", ["hypernetwork", "train", *seen, *self._batch(96), *samples], 0.12),
        ]

    @property
    def data(self) -> Path:
        return self.out / "data"

    @property
    def cache(self) -> Path:
        return self.out / "cache"

    def _stage(self, name: str, command: Sequence[object], share: float = 0.0) -> Stage:
        return Stage(name, _words([*command, "--device", self.device]), share)

    def _batch(self, large: int, small: int = 2) -> list[object]:
        return ["--batch", small if self.tiny else large]


def _words(command: Sequence[object]) -> list[str]:
    return [str(word) for word in command]


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
    run_stages(Chain(args.tools, args.out, args.device, args.tiny).stages(), args.out, args.minutes)
    made = {
        "autoencoder": args.out / "decoder/autoencoder.safetensors",
        "text_to_image": args.out / "unet/text_to_image.safetensors",
        "encoder": args.out / "encoder/encoder.safetensors",
        "decoder": args.out / "hypernetwork/decoder.safetensors",
    }
    split(made, args.out / "parts", words_of(args.out / "cache/tokens.npy"))


if __name__ == "__main__":
    main()
