"""The networks in training, seen as a host: what the hypernetwork's training needs of the bundled checkpoint."""

from contextlib import AbstractContextManager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTokenizer

from hyperdreambooth_ext.hosts import modules
from hyperdreambooth_ext.hosts.checkpoint import TOKENIZER
from hyperdreambooth_ext.hosts.naming import diffusers_name, kohya_linears

from .checkpoint import TextToImage, noise_schedule
from .convolutions import speed_up_convolutions, with_channels_last
from .loop import precision_of
from .models import RES_BLOCKS, SIZE


class TrainingHost:
    """`hosts.protocol.Host` over a TextToImage; latents come from a cache, it has no pictures."""

    family, prediction_type, checkpoint_name, checkpoint_hash = "sd1", "epsilon", "", ""
    dtype, default_size = torch.float32, SIZE

    def __init__(self, text_to_image: Path | None = None, device: torch.device = torch.device("cpu")) -> None:
        self.model, self.device = TextToImage(), device
        if text_to_image is not None:
            self.model.load_state_dict(load_file(text_to_image), strict=False)
        self.model.to(device)
        self.half = precision_of(device) == "bf16"
        with_channels_last(self.model) if self.half else speed_up_convolutions(self.model)
        self.alphas_cumprod = noise_schedule().to(device)
        self.tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
        self._linears = kohya_linears(
            self.model.unet, self.model.text_encoder, lambda name: diffusers_name(name, RES_BLOCKS)
        )

    def linears(self) -> dict[str, nn.Linear]:
        return self._linears

    def _precision(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half)

    def encode_prompts(self, prompts) -> torch.Tensor:
        texts = list(prompts)
        tokens = self.tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        with self._precision():
            return self.model.text_encoder(tokens.input_ids.to(self.device))[0]

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        with self._precision():
            return self.model.unet(latents, timesteps, context=prompt_embeds).float()

    @property
    def capturable(self) -> bool:
        """Its passes go into no CUDA graph."""
        return False

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """It has no autoencoder."""
        raise NotImplementedError

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """It has no autoencoder."""
        raise NotImplementedError

    def frozen(self) -> AbstractContextManager[None]:
        return modules.frozen((self.model,))
