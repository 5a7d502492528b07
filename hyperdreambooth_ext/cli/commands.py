"""What each command does; every one returns the summary that --json prints."""

import argparse
import shutil
import sys
import time
from contextlib import nullcontext
from typing import Any

import torch
from diffusers.utils.logging import set_verbosity_error

from ..errors import UserError
from ..files import check_free
from ..hosts.diffusers import DiffusersHost
from ..hypernet.file import MAX_FILE_BYTES, fitting_hypernetwork, load_hypernetwork, read_config
from ..hypernet.hypernetwork import Hypernetwork
from ..images.photo import Photo, load_photo
from ..images.sheet import save_png
from ..jobs.forecast import peak_megabytes
from ..lidb import file
from ..lidb.basis import AnyBasis
from ..lidb.lora import export_lora
from ..lidb.safetensors_bytes import metadata_of
from ..personalize.finetune import Progress
from ..personalize.options import PersonalizeOptions, options_of
from ..personalize.personalize import Callbacks, Personalized, Request, destination, save
from ..personalize.personalize import personalize as learn
from ..sampling.sampler import Sampling
from ..shipped import CHECKPOINT, MODELS, SAMPLE_PHOTO
from ..texts import plain_text
from .demo import write_sheet
from .generate import generate as make_picture
from .options import given
from .terminal import progress_bar, stop_on_interrupt

# Of PyPI's torch for Windows, which knows no graphics card.
NO_CUDA = (
    "There is an NVIDIA card, but this torch cannot use it, so the processor works. To change that, run once:\n"
    f'"{sys.executable}" -m pip install uv && '
    f'"{sys.executable}" -m uv pip install --reinstall --torch-backend=auto torch torchvision'
)


def personalize(args: argparse.Namespace) -> dict:
    """Photo -> LiDB file."""
    started = time.monotonic()
    options = given(args, PersonalizeOptions)
    destination(args.out, args.name, options.overwrite)
    photo = Photo(load_photo(args.photo))
    host = load_host(args)
    hypernetwork = _hypernetwork(args, host)
    with host.recomputing() if options.low_memory else nullcontext():
        result = _learn_with_bar(photo, options.request(args.name), host, hypernetwork, args.json)
    path = save(result, args.out, options.overwrite)
    summary: dict[str, Any] = {
        "file": str(path), "bytes": path.stat().st_size, "start": result.start, "steps": result.steps,
        "faces": result.faces, "seconds": round(time.monotonic() - started, 2), "peak_megabytes": peak_megabytes(),
        "tag": f"<lidb:{result.info.name}:1>", "prompt": f"a {result.info.trigger} face",
    }  # fmt: skip
    if not args.json:
        if result.faces > 1:
            print(f"{result.faces} faces were found; number {options.face} by size was learned (--face takes another).")
        holds = " It holds a thumbnail of the face (--no-thumbnail leaves it out)." if result.info.thumbnail else ""
        print(
            f"{path} ({summary['bytes'] / 1000:.0f} KB) in {summary['seconds']:.0f} s, started from the "
            f'{result.start} start.{holds}\nUse it: "{summary["prompt"]} {summary["tag"]}"'
        )
    return summary


def generate(args: argparse.Namespace) -> dict:
    """Prompt with tags -> PNG."""
    if args.steps < 1:
        raise UserError(f"{args.steps} sampling steps make no picture: use at least 1, 25 is the default.", "steps")
    named = options_of(PersonalizeOptions)
    named["size"].check(args.size)
    check_free(args.out, args.overwrite)
    host = load_host(args)
    sampling = Sampling(args.steps, args.cfg, args.size, args.negative, args.seed or named["seed"].default)
    started = time.monotonic()
    with progress_bar("Sampling", args.steps, args.json) as bar:
        picture = make_picture(host, args.prompt, args.lidb_dir, sampling, bar.update)
    save_png(picture, args.out, args.overwrite)
    return {"file": str(args.out), "seconds": round(time.monotonic() - started, 2), "seed": sampling.seed}


def export(args: argparse.Namespace) -> dict:
    """LiDB -> LoRA."""
    check_free(args.lora, args.overwrite)
    lidb, info = file.load(args.file)
    export_lora(args.lora, lidb, info, args.overwrite)
    return {"file": str(args.lora), "bytes": args.lora.stat().st_size, "rank": lidb.rank}


def inspect(args: argparse.Namespace) -> dict:
    """What a file is."""
    metadata = metadata_of(args.file, MAX_FILE_BYTES)
    if "hypernetwork" in metadata:
        config = read_config(args.file)
        facts = {
            "kind": "hypernetwork", "family": config.family, "checkpoint": config.checkpoint,
            "checkpoint_hash": config.checkpoint_hash, "architecture": config.architecture.fingerprint,
            "layers": len(config.architecture), "encoder": config.encoder, "iterations": config.iterations,
            "basis": _basis_words(config.basis), "prompt": config.prompt, "trained_on": config.trained_on,
            "held_out": config.held_out, "made_with": config.made_with,
        }  # fmt: skip
    else:
        lidb, info = file.load(args.file, None)
        facts = {
            "kind": "LiDB", "name": info.name, "trigger": info.trigger, "family": info.model_family,
            "checkpoint": info.checkpoint, "checkpoint_hash": info.checkpoint_hash,
            "architecture": lidb.architecture.fingerprint, "layers": len(lidb.architecture), "rank": lidb.rank,
            "numbers": lidb.numel(), "start": info.start, "steps": info.steps, "seed": info.seed,
            "basis": _basis_words(lidb.basis),
            "hypernetwork": info.hypernetwork, "made_with": info.made_with, "thumbnail_bytes": len(info.thumbnail),
        }  # fmt: skip
    facts["bytes"] = args.file.stat().st_size
    if not args.json:
        print("\n".join(f"{name:<16} {plain_text(str(value))}" for name, value in facts.items()))
    return facts


def demo(args: argparse.Namespace) -> dict:
    """Photo -> LiDB file and picture sheet."""
    host = load_host(args)
    hypernetwork = fitting_hypernetwork(host, MODELS)
    photo = Photo(load_photo(args.photo or SAMPLE_PHOTO))
    started = time.monotonic()
    request = given(args, PersonalizeOptions).request("demo")
    result = _learn_with_bar(photo, request, host, hypernetwork, args.json)
    seconds = round(time.monotonic() - started, 2)
    path = save(result, args.out, overwrite=True)
    sheet = write_sheet(host, result, path, args.out / "sheet.png", quiet=args.json)
    if not args.json:
        print(f"{path}: {path.stat().st_size / 1000:.0f} KB, learned in {seconds} s.\n{sheet}: look at it.")
    return {
        "file": str(path), "bytes": path.stat().st_size, "sheet": str(sheet), "start": result.start,
        "seconds": seconds, "peak_megabytes": peak_megabytes(),
    }  # fmt: skip


def _basis_words(basis: AnyBasis) -> str:
    """ "random, a 100, b 50", or the kind and name of a stored one."""
    facts = basis.to_dict()
    kind = f"{facts['kind']} {facts['sha256'][:10]}" if "kind" in facts else "random"
    return f"{kind}, a {facts['a']}, b {facts['b']}"


def load_host(args: argparse.Namespace, dtype: torch.dtype | None = None) -> DiffusersHost:
    """The checkpoint that the arguments name, on the device that they name; without a dtype in bfloat16 on a graphics
    card that has it."""
    device = best_device() if args.device == "auto" else args.device
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"The device {device!r} cannot be used here: choose cpu.", "device") from error
    # Its warnings are for programmers: newer versions warn at every move to a device.
    set_verbosity_error()
    # float16 would need its gradients scaled; bfloat16 has the range of float32.
    halved = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    return DiffusersHost(args.checkpoint or CHECKPOINT, device, dtype or (torch.bfloat16 if halved else torch.float32))


def best_device() -> str:
    """The graphics card where torch can use one, NVIDIA's or Apple's, else the processor."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    if torch.version.cuda is None and shutil.which("nvidia-smi"):
        print(NO_CUDA, file=sys.stderr)
    return "cpu"


def _hypernetwork(args: argparse.Namespace, host: DiffusersHost) -> Hypernetwork | None:
    if args.start in ("gradient", "zero"):
        return None
    return load_hypernetwork(args.hypernetwork) if args.hypernetwork else fitting_hypernetwork(host, MODELS)


def _learn_with_bar(
    photo: Photo, request: Request, host: DiffusersHost, hypernetwork: Hypernetwork | None, quiet: bool
) -> Personalized:
    with stop_on_interrupt() as stopped, progress_bar("Finetune", request.options.steps, quiet) as bar:

        def show(progress: Progress) -> None:
            bar.set_postfix_str(f" · loss {progress.loss:.3f}", refresh=False)
            bar.update()

        return learn(photo, request, host, hypernetwork, Callbacks(on_step=show, should_stop=stopped))
