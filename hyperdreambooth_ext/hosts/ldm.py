"""The model as `ldm` holds it: what the WebUI has loaded as `shared.sd_model`, or a LatentDiffusion of one's own."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from ..errors import ArchitectureError
from . import modules
from .naming import diffusers_name, kohya_linears


class LdmHost:
    """An SD 1.x LatentDiffusion. See `hosts.protocol.Host`; the model is borrowed, never copied or moved."""

    family = "sd1"

    def __init__(self, sd_model: nn.Module, checkpoint_name: str = "", checkpoint_hash: str = "") -> None:
        """Raises ArchitectureError when `sd_model` has no SD 1.x text encoder or UNet."""
        self.sd_model = sd_model
        self.checkpoint_name, self.checkpoint_hash = checkpoint_name, checkpoint_hash
        self.unet = _submodule(sd_model, "model.diffusion_model")
        self.text_encoder = _text_encoder(sd_model)
        parameter = next(self.unet.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.prediction_type = "v_prediction" if getattr(sd_model, "parameterization", "eps") == "v" else "epsilon"
        self.alphas_cumprod = sd_model.alphas_cumprod.detach().float().to(self.device)
        self.default_size = int(getattr(sd_model, "image_size", 64)) * 8

    def linears(self) -> Mapping[str, nn.Linear]:
        per_level = self.unet.num_res_blocks
        return kohya_linears(self.unet, self.text_encoder, lambda name: diffusers_name(name, per_level))

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        posterior = self.sd_model.encode_first_stage(images.to(self.device, self._first_stage_dtype()))
        # The mean, not a sample: the same photo gives the same latents.
        return (posterior.mean * self.sd_model.scale_factor).float()

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        return self.sd_model.decode_first_stage(latents.to(self.device, self._first_stage_dtype())).float()

    def encode_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        return self.sd_model.get_learned_conditioning(list(prompts))

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        embeds = prompt_embeds.to(self.dtype)
        return self.sd_model.apply_model(latents.to(self.dtype), timesteps, embeds).float()

    def frozen(self) -> AbstractContextManager[None]:
        return modules.frozen((self.sd_model,))

    def _first_stage_dtype(self) -> torch.dtype:
        return next(self.sd_model.first_stage_model.parameters()).dtype


def _submodule(module: nn.Module, path: str) -> nn.Module:
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise ArchitectureError("The loaded model is no SD 1.x model: load one, then try again.") from error


def _text_encoder(sd_model: nn.Module) -> nn.Module:
    stage = _submodule(sd_model, "cond_stage_model")
    # The WebUI wraps the embedder to add its prompt syntax.
    stage = getattr(stage, "wrapped", stage)
    if not hasattr(stage, "transformer"):
        raise ArchitectureError("The loaded model has no SD 1.x text encoder: load an SD 1.x model, then try again.")
    return stage.transformer
