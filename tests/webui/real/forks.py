"""From photo to picture in a fork of the WebUI, and what it gives back: the runs that docs/hosts.md tells of.

    WEBUI_PYTHON=PYTHON python -m tests.webui.real.forks ROOT DATA [the program's own arguments]

ROOT is only read. DATA gets the extension and, once, an SD 1.5 of full size with random weights: Forge and its kin load
no smaller ones.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from hyperdreambooth_ext.hosts.checkpoint import CONFIGS, TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO
from tests.webui.real.server import REPOSITORY, Server

ARGUMENTS = ("--always-cpu", "--skip-prepare-environment")
SIZE = {"width": 64, "height": 64, "steps": 2}
SHORT = {"start": "gradient", "steps": 2, "size": 64, "rank": 1, "picture_steps": 2}


def random_sd15(path: Path) -> None:
    """A checkpoint of SD 1.5's shapes in half precision; one table of random numbers fills it in seconds."""
    from ldm.models.autoencoder import AutoencoderKL
    from ldm.modules.diffusionmodules.openaimodel import UNetModel
    from transformers import CLIPTextConfig, CLIPTextModel

    params = yaml.safe_load((CONFIGS / "sd15.yaml").read_text(encoding="utf-8"))["model"]["params"]
    with torch.device("meta"):
        parts = {
            UNET_PREFIX: UNetModel(**params["unet_config"]["params"]),
            VAE_PREFIX: AutoencoderKL(**params["first_stage_config"]["params"]),
            TEXT_PREFIX: CLIPTextModel(CLIPTextConfig(**json.loads((CONFIGS / "clip_l.json").read_text()))),
        }
    table = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    tensors = {}
    for prefix, part in parts.items():
        for key, value in part.state_dict().items():
            if not key.startswith("loss") and "position_ids" not in key:
                filled = table.repeat(value.numel() // len(table) + 1)[: value.numel()].view(value.shape)
                spread = value[0].numel() ** -0.5 if value.ndim > 1 else 0.02
                tensors[prefix + key] = (filled * spread + (value.ndim == 1 and key.endswith("weight"))).half()
    save_file(tensors, path)


def prepare(data: Path) -> None:
    """The extension as it would be installed, and the checkpoint."""
    extension, checkpoint = (
        data / "extensions" / "hyperdreambooth",
        data / "models" / "Stable-diffusion" / "random.safetensors",
    )
    unwanted = shutil.ignore_patterns(".*", "tests", "training", "benchmarks", "docs", "__pycache__")
    shutil.rmtree(extension, ignore_errors=True)
    shutil.copytree(REPOSITORY, extension, ignore=unwanted)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if not checkpoint.exists():
        random_sd15(checkpoint)


def run(server: Server) -> dict:
    """What is seen from outside; True wherever all is as it should be."""
    photo, before = SAMPLE_PHOTO.read_bytes(), server.picture("a sks face", **SIZE)
    learned = server.personalize(photo, "anna", lr=0.3, **SHORT)
    after, (tag, infotext) = server.picture("a sks face", **SIZE), server.generate("a sks face <lidb:anna:1>", **SIZE)
    lora = server.picture(f"a sks face <lora:{server.export('anna')}:1>", **SIZE)
    server.personalize(photo, "anna", lr=1.0, seed=5, **SHORT)
    again = server.picture("a sks face <lidb:anna:1>", **SIZE)
    return {
        "seconds of a job": learned["seconds"],
        "given back": np.array_equal(before, after),
        "the tag acts": not np.array_equal(before, tag),
        "tag and exported LoRA differ by": int(abs(tag - lora).max()),
        "its hash is in the infotext": "anna: " in infotext,
        "a retrained file takes effect": not np.array_equal(tag, again),
        "given back again": np.array_equal(before, server.picture("a sks face", **SIZE)),
        "errors of ours in the log": server.log.read_text(errors="replace").count("hyperdreambooth_ext/"),
    }


def main(root: str, data: str, *arguments: str) -> None:
    """Print the row of one program."""
    # They know some of the arguments of the WebUI no more.
    os.environ["IGNORE_CMD_ARGS_ERRORS"] = "1"
    folder = Path(data).resolve()
    prepare(folder)
    with Server(Path(root), folder, *ARGUMENTS, *arguments) as server:
        print(json.dumps({"program": server.call("/hyperdreambooth/v1/version"), **run(server)}, indent=1))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
