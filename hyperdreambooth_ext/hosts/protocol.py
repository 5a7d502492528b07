"""What the main job needs of a loaded Stable Diffusion model, whoever holds it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import nn


class Host(Protocol):
    """A loaded text-to-image latent diffusion model. Tensors are on `device`; pictures are float32 in [-1, 1]."""

    device: torch.device
    dtype: torch.dtype
    family: str
    """"sd1", "sd2" or "sdxl"."""
    prediction_type: str
    """"epsilon" or "v_prediction"."""
    alphas_cumprod: torch.Tensor
    """float32 [timesteps], the product of 1 - β up to each timestep, as in the DDPM paper."""
    checkpoint_name: str
    checkpoint_hash: str
    """The first ten digits of the SHA-256 of the checkpoint file, as the WebUI shows it."""
    default_size: int
    """The side in pixels that the checkpoint was trained at."""

    @property
    def capturable(self) -> bool:
        """Whether passes through the UNet may be recorded in a CUDA graph: on a graphics card, never waiting for it."""
        ...

    def linears(self) -> Mapping[str, nn.Linear]:
        """kohya key -> module, for all linear layers of UNet and text encoder."""
        ...

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures [B, 3, H, W] -> the mean of their scaled latents [B, 4, H/8, W/8], without gradients."""
        ...

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents [B, 4, h, w] -> pictures [B, 3, 8h, 8w], float32, without gradients."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        """Prompts -> prompt_embeds [B, 77, width]; gradients flow to a LiDB that is injected."""
        ...

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """The UNet's output for noisy latents [B, 4, h, w] at integer timesteps [B]; gradients flow."""
        ...

    def frozen(self) -> AbstractContextManager[None]:
        """Within this context no weight of the model asks for gradients; afterwards each is as it was."""
        ...
