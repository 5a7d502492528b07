"""Train the UNet and the text encoder of the embedded checkpoint, then write the checkpoint in SD1 layout.

    python -m training.checkpoint encode DATA_DIR AUTOENCODER.safetensors OUT_DIR
    python -m training.checkpoint train  DATA_DIR OUT_DIR [--steps 7000] [--start TEXT_TO_IMAGE.safetensors]
                                         [--recogniser LATENT_RECOGNISER.safetensors --faces FACES_DIR]
    python -m training.checkpoint export OUT_DIR AUTOENCODER.safetensors models/faces128.safetensors

`encode` caches the latents of all training pictures, scaled to unit variance; the scale goes into the autoencoder's
1x1 convolutions, so that the checkpoint keeps Stable Diffusion's own factor 0.18215.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTokenizer

from hyperdreambooth_ext.hosts.checkpoint import CONFIGS, TOKENIZER, ddpm_alphas_cumprod
from hyperdreambooth_ext.hypernet.latent_identity import LatentIdentityEnsemble
from hyperdreambooth_ext.hypernet.loss import IdentityLoss
from hyperdreambooth_ext.sampling.schedule import add_noise, clean_latents

from .captions import PHOTO, describe
from .faces import FIRST_TRAINING_IDENTITY
from .loop import train
from .models import AUTOENCODER, UNET, Autoencoder, new_text_encoder, new_unet
from .pairs import index_of, known_identities

SCALE_FACTOR = 0.18215
SCHEDULE = {"linear_start": 0.00085, "linear_end": 0.0120, "timesteps": 1000}
WORDLESS = 0.1  # the share of training pictures whose caption is left out, for classifier-free guidance
MIN_SNR_GAMMA = 5.0


class TextToImage(nn.Module):
    """UNet and text encoder as one module, so that one optimiser trains both."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.text_encoder = new_unet(), new_text_encoder()

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The predicted noise, from noisy latents [B, 4, h, w], timesteps [B] and token numbers [B, 77]."""
        return self.unet(latents, timesteps, context=self.text_encoder(tokens)[0])


@torch.no_grad()
def encode(data: Path, autoencoder: Path, out: Path) -> None:
    """Cache the latents' means, float16 [rows, 4, h, w], and their scale."""
    model, images = Autoencoder().eval(), np.load(data / "images.npy", mmap_mode="r")
    model.load(autoencoder)
    latents = []
    for start in range(0, len(images), 64):
        batch = torch.from_numpy(images[start : start + 64]).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latents.append(model.encode(batch).float())
    latents = torch.cat(latents)
    shift, scale = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    out.mkdir(parents=True, exist_ok=True)
    normal = (latents - shift.view(1, 4, 1, 1)) / scale.view(1, 4, 1, 1)
    np.save(out / "latents.npy", normal.half().numpy())
    save_file({"shift": shift, "scale": scale}, out / "scale.safetensors")
    print(f"{len(latents)} latents; shift {shift.tolist()}, scale {scale.tolist()}")


def train_checkpoint(
    data: Path, out: Path, steps: int, batch: int, lr: float, start: Path | None,
    recogniser: list[Path] | None, faces: Path | None, identity_weight: float,
) -> None:  # fmt: skip
    """Train with the noise-prediction loss, weighted by min-SNR (arXiv 2303.09556), and, with a `recogniser` of
    latents, an identity loss on the photos. Resumes from OUT/state.pt."""
    rows = index_of(data)
    usable = np.array([i for i, row in enumerate(rows) if row["identity"] >= FIRST_TRAINING_IDENTITY])
    latents_of = np.load(out / "latents.npy")
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    torch.manual_seed(0)
    model, alphas_cumprod = TextToImage(), ddpm_alphas_cumprod(**SCHEDULE)
    if start:
        model.load_state_dict(load_file(start), strict=False)
    snr = alphas_cumprod / (1 - alphas_cumprod)
    identity = IdentityLoss(LatentIdentityEnsemble.load(recogniser), identity_weight) if recogniser else None
    known = known_identities(faces) if faces else {}

    def losses(_step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        words = random.Random(int(rng.integers(1 << 62)))
        chosen = rng.choice(usable, batch)
        captions = ["" if words.random() < WORDLESS else describe(rows[i], rows[i]["style"], words) for i in chosen]
        tokens = tokenizer(
            captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids
        latents = torch.from_numpy(latents_of[chosen]).float()
        noise = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
        timesteps = torch.from_numpy(rng.integers(0, len(alphas_cumprod), batch))
        noisy = add_noise(latents, noise, alphas_cumprod[timesteps])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = model(noisy, timesteps, tokens).float()
        errors = F.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3))
        weights = (MIN_SNR_GAMMA / snr[timesteps]).clamp(max=1)
        losses = {"loss": (errors * weights).mean(), "mse": errors.mean()}
        if identity is not None:
            alphas = alphas_cumprod[timesteps]
            photo = torch.tensor([rows[i]["style"] == PHOTO for i in chosen])
            people = torch.stack([known[rows[i]["identity"]] for i in chosen])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                unlike = identity.per_sample(clean_latents(noisy, predicted, alphas, "epsilon"), people, alphas)
            losses["unlike"] = (unlike * photo).sum() / photo.sum().clamp(min=1)
            losses["loss"] = losses["loss"] + identity.weight * losses["unlike"]
        return losses

    average = train(out, model, losses, steps=steps, lr=lr)
    save_file({k: v.contiguous() for k, v in average.state_dict().items()}, out / "text_to_image.safetensors")


def export(out: Path, autoencoder: Path, file: Path, from_state: bool) -> None:
    """Write FILE (float16, SD1 layout) and FILE's sidecar yaml."""
    if from_state:
        average = torch.load(out / "state.pt", weights_only=True)["average"]
        trained = {key.removeprefix("module."): value for key, value in average.items() if key.startswith("module.")}
    else:
        trained = load_file(out / "text_to_image.safetensors")
    tensors = {}
    for key, value in trained.items():
        if key.startswith("unet."):
            tensors["model.diffusion_model." + key.removeprefix("unet.")] = value
        else:
            name = key.removeprefix("text_encoder.").removeprefix("text_model.")
            tensors["cond_stage_model.transformer.text_model." + name] = value
    scale = load_file(out / "scale.safetensors")
    scaled = _scaled(load_file(autoencoder), scale["shift"], scale["scale"])
    tensors |= {"first_stage_model." + key: value for key, value in scaled.items()}
    half = {key: value.half().contiguous() for key, value in tensors.items() if not key.endswith("position_ids")}
    save_file(half, file)
    file.with_suffix(".yaml").write_text(_sidecar(), encoding="utf-8")
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


def _scaled(weights: dict[str, torch.Tensor], shift: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
    """The autoencoder with latents of mean 0 and standard deviation 1 / SCALE_FACTOR."""
    gain = 1 / (scale * SCALE_FACTOR)
    rows = torch.cat([gain, torch.ones(4)])
    weights = dict(weights)
    weights["quant_conv.weight"] = weights["quant_conv.weight"] * rows.view(8, 1, 1, 1)
    weights["quant_conv.bias"] = (weights["quant_conv.bias"] - torch.cat([shift, torch.zeros(4)])) * rows
    weights["quant_conv.bias"][4:] += 2 * gain.log()
    convolution = weights["post_quant_conv.weight"]
    weights["post_quant_conv.bias"] = weights["post_quant_conv.bias"] + convolution[:, :, 0, 0] @ shift
    weights["post_quant_conv.weight"] = convolution / gain.view(1, 4, 1, 1)
    return weights


def _sidecar() -> str:
    config = yaml.safe_load((CONFIGS / "sd15.yaml").read_text(encoding="utf-8"))
    params = config["model"]["params"]
    params["image_size"] = UNET["image_size"]
    params["unet_config"]["params"] = UNET
    params["first_stage_config"]["params"]["ddconfig"] = AUTOENCODER
    params["cond_stage_config"]["params"] = {"version": "clip"}
    note = (
        "# A small Stable Diffusion 1 for faces at 128 px. `version`: the folder of its text encoder's configuration.\n"
    )
    return note + yaml.safe_dump(config, sort_keys=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    encoding = actions.add_parser("encode")
    encoding.add_argument("data", type=Path)
    encoding.add_argument("autoencoder", type=Path)
    encoding.add_argument("out", type=Path)
    training = actions.add_parser("train")
    training.add_argument("data", type=Path)
    training.add_argument("out", type=Path)
    training.add_argument("--steps", type=int, default=7000)
    training.add_argument("--batch", type=int, default=32)
    training.add_argument("--lr", type=float, default=6e-4)
    training.add_argument("--start", type=Path, help="text_to_image.safetensors of an earlier run")
    training.add_argument("--recogniser", type=Path, nargs="+", help="what training.latent_recogniser wrote")
    training.add_argument("--faces", type=Path, help="FACES_DIR, needed with --recogniser")
    training.add_argument("--identity-weight", type=float, default=0.05)
    exporting = actions.add_parser("export")
    exporting.add_argument("out", type=Path)
    exporting.add_argument("autoencoder", type=Path)
    exporting.add_argument("file", type=Path)
    exporting.add_argument("--from-state", action="store_true", help="take the average of a run that still goes on")
    args = vars(parser.parse_args())
    {"encode": encode, "train": train_checkpoint, "export": export}[args.pop("action")](**args)


if __name__ == "__main__":
    main()
