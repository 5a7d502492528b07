"""Judge a checkpoint by the faces that it samples without any LiDB.

    python run.py faces OUT_DIR [--checkpoint FILE] [--count 2000] [--photos FOLDER] [--nearest FOLDER]

Pictures are sampled from varied captions and judged: the share with exactly one good face, sharpness relative to the
photos, FID and KID against as many photos. `--size` scales pictures and photos to one size, so that checkpoints of
different resolutions are judged alike. `--nearest` looks for each of the first 64 pictures in a folder of training
photos, by dlib's features and by pixels: what has been memorized stands out beside them on the sheet.

What is done is kept in OUT_DIR: a run that is stopped goes on where it was. Writes faces.json, faces.md and faces.png.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.files import write_atomically
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.images.sheet import save_png
from hyperdreambooth_ext.pretrain.prompts import Portraits, noise_seed, read_prompts
from hyperdreambooth_ext.sampling.sampler import Sampling, sample_many
from hyperdreambooth_ext.shipped import CHECKPOINT

from .faces_report import write_report
from .people import SYNTHETIC
from .score_cache import Frame

# Part of what pictures are kept by: those of two samplers are not to be mixed.
SAMPLER = "DPM-Solver++(2M), trailing timesteps"


def main(arguments: list[str] | None = None) -> None:
    """The command; `arguments` None are those of the process. Raises UserError."""
    args = parse_arguments(arguments)
    host = DiffusersHost(args.checkpoint, args.device)
    sample_missing(host, args)
    pictures = [picture_file(args.out, number) for number in range(args.count)]
    frame = Frame("square" if args.whole else "crop", args.size or host.default_size)
    write_report(args.out, pictures, args.photos, frame, args.nearest)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--count", type=int, default=2000, help="pictures to sample")
    parser.add_argument("--prompts", type=Path, help="captions, one a line (default: the checkpoint's own words)")
    parser.add_argument("--photos", type=Path, default=SYNTHETIC, help="photos that nothing was trained on")
    parser.add_argument("--whole", action="store_true", help="photos as they are, instead of aligned crops of faces")
    parser.add_argument("--nearest", type=Path, help="photos that the checkpoint was trained on")
    parser.add_argument("--size", type=int, help="side that is judged, in pixels (default: the checkpoint's)")
    parser.add_argument("--steps", type=int, default=Sampling().steps)
    parser.add_argument("--cfg", type=float, help="guidance scale (default: the checkpoint's)")
    parser.add_argument("--batch", type=int, default=8, help="pictures at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="that samples; judges stay on the processor")
    return parser.parse_args(arguments)


def sample_missing(host: DiffusersHost, args: argparse.Namespace) -> None:
    """Sample the pictures that OUT_DIR does not have yet. Raises UserError where it has those of other settings."""
    sampling = Sampling(args.steps, args.cfg, seed=args.seed)
    prompts = read_prompts(str(args.prompts)) if args.prompts else None
    settings = {"checkpoint": host.checkpoint_hash, "prompts": prompts, "sampler": SAMPLER, **asdict(sampling)}
    _check_settings(args.out / "pictures.json", settings)
    portraits = Portraits.of(host.checkpoint_hash)
    missing = [number for number in range(args.count) if not picture_file(args.out, number).exists()]
    for first in range(0, len(missing), args.batch):
        numbers = missing[first : first + args.batch]
        captions = [prompts[n % len(prompts)] if prompts else portraits.prompt(n, args.seed) for n in numbers]
        seeds = [noise_seed(number, args.seed) for number in numbers]
        for number, picture in zip(numbers, sample_many(host, captions, seeds, sampling), strict=True):
            save_png(picture, picture_file(args.out, number))
        print(f"{numbers[-1] + 1} of {args.count} pictures", flush=True)


def picture_file(out: Path, number: int) -> Path:
    """Where a picture lies, the same for the same number and seed."""
    return out / "pictures" / f"{number:05d}.png"


def _check_settings(file: Path, settings: dict) -> None:
    if file.exists() and json.loads(file.read_text()) != settings:
        raise UserError(f"{file.parent} holds pictures of another checkpoint or other settings: give an empty folder.")
    write_atomically(file, json.dumps(settings, indent=2).encode())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
