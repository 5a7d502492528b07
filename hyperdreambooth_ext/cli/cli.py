"""The command line: personalize, generate, export, inspect, demo, ui, build."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from .. import __version__
from ..errors import UserError
from ..personalize.options import PersonalizeOptions, options_of
from ..pretrain.options import FORMER, BuildOptions, Part
from ..temporary import remove_leftovers
from ..texts import plain_text
from .options import add_options

DEFAULT_DIR = Path("lidb")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 an error that the user was told, 130 interrupted."""
    args = _parser().parse_args(argv)
    try:
        summary = _run(args)
    except UserError as error:
        sentence = _with_flags(error, args)
        print(f"error: {plain_text(sentence)}", file=sys.stderr)
        return _finish(args, {"ok": False, "error": sentence}, 1)
    except KeyboardInterrupt:
        print("Interrupted: nothing was saved.", file=sys.stderr)
        return _finish(args, {"ok": False, "error": "interrupted"}, 130)
    return _finish(args, {"ok": True, **summary}, 0)


def _run(args: argparse.Namespace) -> dict:
    if args.command == "ui":
        # Without the other commands and their diffusers: the page is there before the model is.
        from .window import serve

        return serve(args)
    for written in ("out", "lora"):
        if path := getattr(args, written, None):
            remove_leftovers(path if path.is_dir() else path.parent)
    if args.command == "build":
        from .build import run_build

        return run_build(args)
    from . import commands

    return getattr(commands, args.command)(args)


def _with_flags(error: UserError, args: argparse.Namespace) -> str:
    """The sentence, and of the options that it is about those that this command has."""
    flags = ", ".join("--" + name.replace("_", "-") for name in error.options if hasattr(args, name))
    return f"{str(error).rstrip('.')} ({flags})." if flags else str(error)


def _finish(args: argparse.Namespace, summary: dict, code: int) -> int:
    if args.json:
        print(json.dumps(summary))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hyperdreambooth_ext", description="One photo of a face becomes a LiDB file.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    _personalize(commands)
    _generate(commands)
    _export(commands)
    _inspect(commands)
    _demo(commands)
    _ui(commands)
    _build(commands)
    return parser


def _command(commands, name: str, what: str, example: str) -> argparse.ArgumentParser:
    shown, form = f"example:\n  python run.py {name} {example}", argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(name, help=what, description=what, epilog=shown, formatter_class=form)
    parser.add_argument("--json", action="store_true", help="one JSON summary as the last line; no progress bars")
    return parser


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", type=Path, help="a .safetensors file of an SD 1.x or SDXL (default: the bundled one)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")


def _some_options(parser: argparse.ArgumentParser, *names: str) -> None:
    add_options(parser, [options_of(PersonalizeOptions)[name] for name in names])


def _personalize(commands) -> None:
    what = "Learn the face of one photo and save it as a LiDB."
    parser = _command(commands, "personalize", what, "photo.jpg --name anna")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--name", required=True, help="the name in <lidb:NAME:1>")
    _model_options(parser)
    parser.add_argument("--out", type=Path, default=DEFAULT_DIR, help="folder of the LiDB (default: %(default)s)")
    parser.add_argument("--hypernetwork", type=Path, help="a hypernetwork file (default: the bundled one that fits)")
    _some_options(parser, *options_of(PersonalizeOptions, "cli"))


def _generate(commands) -> None:
    what = "Make a picture from a prompt with <lidb:NAME:MULTIPLIER> tags."
    parser = _command(commands, "generate", what, '"a sks face, pencil sketch <lidb:anna:0.8>" --out anna.png')
    parser.add_argument("prompt")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--lidb-dir", type=Path, default=DEFAULT_DIR, help="where the LiDBs are (default: %(default)s)")
    _model_options(parser)
    _some_options(parser, "seed", "size")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cfg", type=float, help="guidance scale (default: the checkpoint's)")
    parser.add_argument("--negative", default="", help="what the picture should not be")
    parser.add_argument("--overwrite", action="store_true", help="replace a picture of the same name")


def _export(commands) -> None:
    what = "Turn a LiDB into an ordinary LoRA for hosts without this extension."
    parser = _command(commands, "export", what, "lidb/anna.safetensors --lora anna_lora.safetensors")
    parser.add_argument("file", type=Path)
    parser.add_argument("--lora", type=Path, required=True, help="the LoRA to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a file of the same name")


def _inspect(commands) -> None:
    what = "Say what a LiDB or hypernetwork file is and what it was made for."
    parser = _command(commands, "inspect", what, "lidb/anna.safetensors")
    parser.add_argument("file", type=Path)


def _demo(commands) -> None:
    parser = _command(commands, "demo", "Personalize a photo and lay the pictures out on one sheet.", "--out demo")
    parser.add_argument("--photo", type=Path, help="default: the bundled sample photo")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the LiDB and the sheet")
    _model_options(parser)
    _some_options(parser, "steps", "seed", "size", "thumbnail")


def _ui(commands) -> None:
    parser = _command(commands, "ui", "Open the tab in a window of its own, at http://127.0.0.1:7861.", "--port 7861")
    parser.add_argument("--port", type=int, default=7861, help="(default: %(default)s)")
    parser.add_argument("--listen", action="store_true", help="let other machines in too, without any password")
    parser.add_argument("--out", type=Path, default=DEFAULT_DIR, help="folder of the LiDBs (default: %(default)s)")
    _model_options(parser)


def _build(commands) -> None:
    what = "Build a hypernetwork for a checkpoint out of faces that it samples itself; the same command goes on."
    parser = _command(commands, "build", what, "my-checkpoint --checkpoint model.safetensors --hours 8")
    parser.add_argument("folder", type=Path, help="where the build keeps what it makes")
    _model_options(parser)
    parser.add_argument("--out", type=Path, help="folder of the finished file (default: models/ of this extension)")
    parser.add_argument("--until", choices=get_args(Part), default="export", help="stop after this part")
    low = "take less memory and more time: keep no activations within the blocks of the UNet"
    parser.add_argument("--low-memory", action="store_true", help=low)
    add_options(parser, options_of(BuildOptions).values(), FORMER)
