"""The same prompts and seeds on one sheet, again and again while a training runs: to be looked at."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTokenizer

from hyperdreambooth_ext.hosts.checkpoint import TOKENIZER
from hyperdreambooth_ext.sampling.schedule import clean_latents

from .models import Autoencoder

PROMPTS = (
    "a photo of a young woman, smiling, long brown hair, facing the camera",
    "a photo of an old man, serious, gray hair, white background",
    "a middle-aged man, neutral expression, short black hair, wearing glasses, photo",
    "a woman in her 30s, dark skin, black hair, smiling, gray background",
    "a young man, dark skin, serious, facing the camera, white background",
    "a woman, red hair, looking left, bright light",
    "a man, bald, a slight smile, dark background",
    "a woman in her 50s, blond hair, wearing a hat",
    "a face",
    "",
    "a pencil sketch of a young woman, smiling",
    "a middle-aged man, cartoon",
    "a woman, oil painting",
    "a man in his 20s, pixel art",
    "a charcoal drawing of an old woman",
    "a young man, pop art",
)
STEPS, GUIDANCE = 30, 3.0


@torch.no_grad()
def sampled(
    model: nn.Module, prompts: tuple[str, ...], alphas_cumprod: torch.Tensor, side: int, seed: int = 0
) -> torch.Tensor:
    """Latents float32 [B, 4, side, side] of the prompts, by DDIM (arXiv 2010.02502) with classifier-free guidance."""
    device = alphas_cumprod.device
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    texts = [*prompts, *[""] * len(prompts)]
    tokens = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    context = model.text_encoder(tokens.to(device))[0]
    latents = torch.randn((len(prompts), 4, side, side), generator=torch.Generator().manual_seed(seed)).to(device)
    times = torch.linspace(len(alphas_cumprod) - 1, 0, STEPS + 1).round().long().tolist()
    for now, later in zip(times[:-1], times[1:], strict=True):
        timesteps = torch.full((len(texts),), now, device=device)
        cond, uncond = model.unet(latents.repeat(2, 1, 1, 1), timesteps, context=context).float().chunk(2)
        noise = uncond + GUIDANCE * (cond - uncond)
        clean = clean_latents(latents, noise, alphas_cumprod[now].expand(len(prompts)), "epsilon")
        noise = (latents - alphas_cumprod[now].sqrt() * clean) / (1 - alphas_cumprod[now]).sqrt()
        latents = alphas_cumprod[later].sqrt() * clean + (1 - alphas_cumprod[later]).sqrt() * noise
    return latents


@torch.no_grad()
def save_sheet(
    file: Path, model: nn.Module, autoencoder: Path, cache: Path, alphas_cumprod: torch.Tensor, size: int
) -> None:
    """Write the prompts' pictures, four in a row; CACHE holds the latents' scale."""
    device = alphas_cumprod.device
    decoder = Autoencoder().to(device).eval()
    decoder.load(autoencoder)
    scale = {name: value.to(device).view(1, 4, 1, 1) for name, value in load_file(cache / "scale.safetensors").items()}
    latents = sampled(model.eval(), PROMPTS, alphas_cumprod, size // 8)
    pictures = decoder.decode(latents * scale["scale"] + scale["shift"]).clamp(-1, 1)
    rows = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy().reshape(4, 4, size, size, 3)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(np.concatenate(rows, 1), 1)).save(file)
