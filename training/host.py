"""The networks in training, seen as a host: what the hypernetwork's training needs of the embedded checkpoint."""

from contextlib import AbstractContextManager

import torch
from torch import nn
from transformers import CLIPTokenizer

from hyperdreambooth_ext.hosts import modules
from hyperdreambooth_ext.hosts.checkpoint import TOKENIZER, ddpm_alphas_cumprod
from hyperdreambooth_ext.hosts.naming import diffusers_name, kohya_linears

from .checkpoint import SCHEDULE, TextToImage
from .models import UNET


class TrainingHost:
    """`hosts.protocol.Host` over a TextToImage, in bf16 on the CPU; latents come from a cache, it has no pictures."""

    family, prediction_type, checkpoint_name, checkpoint_hash = "sd1", "epsilon", "", ""
    device, dtype = torch.device("cpu"), torch.float32
    default_size = UNET["image_size"] * 8

    def __init__(self, model: TextToImage) -> None:
        self.model = model
        self.alphas_cumprod = ddpm_alphas_cumprod(**SCHEDULE)
        self.tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
        self._linears = kohya_linears(
            model.unet, model.text_encoder, lambda name: diffusers_name(name, UNET["num_res_blocks"])
        )

    def linears(self) -> dict[str, nn.Linear]:
        return self._linears

    def encode_prompts(self, prompts) -> torch.Tensor:
        tokens = self.tokenizer(
            list(prompts), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model.text_encoder(tokens.input_ids)[0]

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model.unet(latents, timesteps, context=prompt_embeds).float()

    def frozen(self) -> AbstractContextManager[None]:
        return modules.frozen((self.model,))
