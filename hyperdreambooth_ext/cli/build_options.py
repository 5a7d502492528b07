"""The arguments of `python run.py build`."""

import argparse
from collections.abc import Callable
from pathlib import Path

_WHAT = "Build a hypernetwork for a checkpoint out of faces that it draws itself; the same command goes on."
# option -> (type, what it says). None of them has a default here: what is left out is as the build was begun.
OPTIONS: dict[str, tuple[type, str]] = {
    "faces": (int, "how many to learn from (1000)"),
    "photos": (str, "a folder of photos, one face in each, instead of faces that the checkpoint draws"),
    "shards": (str, "webdataset shards instead: a pattern such as 'data/*.tar', or URLs with {000..099}"),
    "hours": (float, "a limit: the number of steps follows from what the first ones take"),
    "steps": (int, "of the training, without --hours (3000)"),
    "batch": (int, "people in a step, over all processes (16)"),
    "precision": (str, "fp32, bf16, fp16 (fp32)"),
    "basis": (str, "random, learned, pca, gradient (random)"),
    "basis-people": (int, "faces that the pca and the gradient basis are made of (192)"),
    "target-steps": (int, "pre-optimize a LiDB for every face with so many steps, to learn from; 0: none (0)"),
    "target-batch": (int, "people at once while doing so (32)"),
    "warm-up": (int, "so many steps on the targets alone (0)"),
    "beta": (float, "weight of the targets beside the diffusion loss (0)"),
    "words-weight": (float, "weight of what the checkpoint makes of the words that it drew a face from (0)"),
    "identity-weight": (float, "weight of the identity loss of noisy photos (0.1)"),
    "drawn-weight": (float, "weight of the identity loss of drawings from pure noise; both 0: none (1)"),
    "styled": (float, "share of the people of a step who are also asked for in a style; 0: none (0.25)"),
    "style-weight": (float, "what it counts that a style comes out as without anybody's weights (5)"),
    "recognizer-steps": (
        int,
        "steps of the first recognizer that the identity loss asks; the second takes twice as many (400)",
    ),
    "lr": (float, "learning rate (0.001)"),
    "ema": (float, "decay of the weights' moving average (0.99)"),
    "keep": (str, "the weights that the file gets: best, on the held-out faces, or last (best)"),
    "evaluate-every": (int, "steps between two looks at the held-out faces (250)"),
    "score-steps": (int, "sampling steps of each of their pictures (10)"),
    "held-out": (int, "faces that are kept to measure with (16)"),
    "size": (int, "side in pixels (the checkpoint's own)"),
    "encoder": (str, "an image encoder of timm, or open_clip:NAME/WEIGHTS, which is downloaded (the bundled one)"),
    "width": (int, "of the decoder (128)"),
    "depth": (int, "its layers (2)"),
    "iterations": (int, "how often it refines its prediction (2)"),
    "prompts": (str, "a text file with one prompt a line to draw the faces from"),
    "negative": (str, "what the drawn faces should not show (nothing)"),
    "draw-batch": (int, "faces that are drawn at once (8)"),
    "draw-steps": (int, "sampling steps of each (20)"),
    "cfg": (float, "guidance scale of the drawing (4)"),
    "seed": (int, "(0)"),
}


def add_build(commands, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `build` to the command line's commands."""
    parser = command(commands, "build", _WHAT, "build my-checkpoint --checkpoint model.safetensors --hours 8")
    parser.add_argument("folder", type=Path, help="where the build keeps what it makes")
    parser.add_argument("--checkpoint", type=Path, help="an SD 1.x .safetensors file (default: the bundled one)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--out", type=Path, help="folder of the finished file (default: models/ of this extension)")
    parser.add_argument("--until", choices=("faces", "targets", "train"), help="stop after this part")
    low = "take less memory and more time: keep no activations within the blocks of the UNet"
    parser.add_argument("--low-memory", action="store_true", help=low)
    for name, (kind, text) in OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind, help=text)


def asked_for(args: argparse.Namespace) -> dict:
    """The build's options that were given by name."""
    named = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name in OPTIONS}
    return {name: value for name, value in named.items() if value is not None}
