"""Take the shipped files apart again, so that a training can go on from them without all the runs before it.

    python -m training.unpack OUT_DIR

Writes autoencoder.safetensors, text_to_image.safetensors, encoder.safetensors and decoder.safetensors, in the form that
the trainings wrote them in but in the shipped files' 16 bits: what `training.checkpoint encode`, both `--start` and
`training.hypernetwork features` take. Its latents have unit variance already, so `encode` changes next to nothing.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hyperdreambooth_ext.shipped import CHECKPOINT, HYPERNETWORK


def renamed(weights: dict[str, torch.Tensor], prefix: str, new_prefix: str = "") -> dict[str, torch.Tensor]:
    """What lies under `prefix`, float32, under `new_prefix` instead."""
    return {
        new_prefix + key.removeprefix(prefix): value.float().contiguous()
        for key, value in weights.items()
        if key.startswith(prefix)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, hypernetwork = load_file(CHECKPOINT), load_file(HYPERNETWORK)
    save_file(renamed(checkpoint, "first_stage_model."), out / "autoencoder.safetensors")
    text_to_image = renamed(checkpoint, "model.diffusion_model.", "unet.") | renamed(
        checkpoint, "cond_stage_model.transformer.", "text_encoder."
    )
    save_file(text_to_image, out / "text_to_image.safetensors")
    decoder = renamed(hypernetwork, "decoder.")
    save_file(decoder, out / "decoder.safetensors")
    head = {"head.weight": decoder["identity_weight"].clone(), "head.bias": decoder["identity_bias"].clone()}
    save_file(renamed(hypernetwork, "encoder.", "encoder.") | head, out / "encoder.safetensors")


if __name__ == "__main__":
    main()
