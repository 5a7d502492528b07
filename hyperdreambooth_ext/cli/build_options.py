"""The arguments of `python run.py build`."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from ..pretrain.options import FORMER, BuildOptions

_WHAT = "Build a hypernetwork for a checkpoint out of faces that it samples itself; the same command goes on."


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
    for option in fields(BuildOptions):
        # No default here: what is left out is as the build was begun.
        default = "" if option.default == "" else f" ({option.default})"
        names = [option.name, *(former for former, name in FORMER.items() if name == option.name)]
        parser.add_argument(
            *(f"--{name.replace('_', '-')}" for name in names), type=type(option.default), dest=option.name,
            help=option.metadata["help"] + default,
        )  # fmt: skip


def asked_for(args: argparse.Namespace) -> dict:
    """The build's options that were given by name."""
    values = {option.name: getattr(args, option.name) for option in fields(BuildOptions)}
    return {name: value for name, value in values.items() if value is not None}
