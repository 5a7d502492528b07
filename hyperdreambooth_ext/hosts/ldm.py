"""The model as `ldm` holds it: what the WebUI has loaded as `shared.sd_model`, or a LatentDiffusion of one's own."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from ..errors import ArchitectureError
from ..lidb.layers import kohya_key
from . import modules


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
        found = {}
        for name, module in self.unet.named_modules():
            if isinstance(module, nn.Linear):
                found[kohya_key("lora_unet", diffusers_name(name, self.unet.num_res_blocks))] = module
        for name, module in self.text_encoder.named_modules():
            if isinstance(module, nn.Linear):
                name = name if name.startswith("text_model.") else f"text_model.{name}"
                found[kohya_key("lora_te", name)] = module
        return found

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


def diffusers_name(name: str, num_res_blocks: int | Sequence[int]) -> str:
    """A UNet module's name in `ldm` -> its name in diffusers, which kohya's keys are made of.

    Only transformer blocks are renamed; any other name comes back as it is.
    """
    parts = name.split(".")
    per_level = num_res_blocks if isinstance(num_res_blocks, int) else num_res_blocks[0]
    if parts[0] == "middle_block" and parts[1:2] == ["1"]:
        return ".".join(["mid_block", "attentions", "0", *parts[2:]])
    if parts[0] == "input_blocks" and parts[2:3] == ["1"] and int(parts[1]) > 0:
        # input_blocks.0 is the first convolution; each level then has its blocks and one downsampler.
        level, block = divmod(int(parts[1]) - 1, per_level + 1)
        return ".".join(["down_blocks", str(level), "attentions", str(block), *parts[3:]])
    if parts[0] == "output_blocks" and parts[2:3] == ["1"]:
        level, block = divmod(int(parts[1]), per_level + 1)
        return ".".join(["up_blocks", str(level), "attentions", str(block), *parts[3:]])
    return name


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
