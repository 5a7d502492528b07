"""The model as diffusers holds it: for the command line, from any SD1-layout checkpoint file, offline."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import modules
from .checkpoint import TEXT_PREFIX, TOKENIZER, UNET_PREFIX, VAE_PREFIX, Checkpoint, read_checkpoint
from .naming import kohya_linears

# What diffusers and transformers raise on a configuration that is none, beside what they check themselves.
_MISFIT = (
    ValueError, LookupError, RuntimeError, OSError, TypeError, AttributeError, ArithmeticError, AssertionError,
)  # fmt: skip


_KEPT_TOKENS = 64


class DiffusersHost:
    """An SD 1.x model out of diffusers' and transformers' classes. See `hosts.protocol.Host`."""

    family = "sd1"

    def __init__(
        self, path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        """Load `path`. Raises FileError or ArchitectureError, each a sentence for the user."""
        checkpoint = read_checkpoint(path)
        params = checkpoint.config["model"]["params"]
        self.device, self.dtype = torch.device(device), dtype
        self.checkpoint_name, self.checkpoint_hash = checkpoint.path.stem, checkpoint.sha256[:10]
        self.prediction_type = "v_prediction" if params.get("parameterization") == "v" else "epsilon"
        self.scale_factor = float(params.get("scale_factor", 0.18215))
        self.default_size = int(params["image_size"]) * 8
        self.alphas_cumprod = checkpoint.alphas_cumprod().to(self.device)
        self.unet = _from_single_file(UNet2DConditionModel, checkpoint, UNET_PREFIX).to(self.device, dtype).eval()
        self.vae = _from_single_file(AutoencoderKL, checkpoint, VAE_PREFIX).to(self.device, torch.float32).eval()
        self.text_encoder = _text_encoder(checkpoint).to(self.device, dtype).eval()
        self._prepare_tokens()

    def _prepare_tokens(self) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
        self._kept_tokens: dict[tuple[str, ...], torch.Tensor] = {}

    @property
    def capturable(self) -> bool:
        return self.device.type == "cuda"

    def linears(self) -> Mapping[str, nn.Linear]:
        return kohya_linears(self.unet, self.text_encoder)

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        latents = self.vae.encode(images.to(self.device, self.vae.dtype)).latent_dist.mean
        return (latents * self.scale_factor).float()

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latents.to(self.device, self.vae.dtype) / self.scale_factor).sample.float()

    def encode_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        return self.text_encoder(self._tokens(tuple(prompts)))[0]

    def _tokens(self, prompts: tuple[str, ...]) -> torch.Tensor:
        """int64 [B, 77] on the device; kept for the next time, since a training asks for the same ones at every step
        and a CUDA graph may not copy from the processor."""
        if prompts not in self._kept_tokens:
            if len(self._kept_tokens) >= _KEPT_TOKENS:
                self._kept_tokens.clear()
            tokens = self.tokenizer(
                list(prompts), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
            )
            # Made while somebody draws in inference mode, nothing could be trained with them afterwards.
            with torch.inference_mode(False):
                self._kept_tokens[prompts] = tokens.input_ids.clone().to(self.device)
        return self._kept_tokens[prompts]

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        embeds = prompt_embeds.to(self.dtype)
        return self.unet(latents.to(self.dtype), timesteps, encoder_hidden_states=embeds).sample.float()

    def recomputing(self) -> AbstractContextManager[None]:
        """Within this context a backward pass takes less memory and more time (see `modules.recomputed`)."""
        return modules.recomputed([BasicTransformerBlock, ResnetBlock2D])

    def frozen(self) -> AbstractContextManager[None]:
        return modules.frozen((self.unet, self.vae, self.text_encoder))


def _from_single_file(model_class: Any, checkpoint: Checkpoint, prefix: str) -> nn.Module:
    weights = {prefix + key: value for key, value in checkpoint.part(prefix).items()}
    try:
        model = model_class.from_single_file(weights, original_config=checkpoint.config)
    except _MISFIT as error:
        raise checkpoint.misfit() from error
    if any(parameter.is_meta for parameter in model.parameters()):
        raise checkpoint.misfit()
    return model


def _text_encoder(checkpoint: Checkpoint) -> CLIPTextModel:
    try:
        model = CLIPTextModel(CLIPTextConfig(**checkpoint.text_config()))
    except _MISFIT as error:
        raise checkpoint.misfit() from error
    weights = {k: v for k, v in checkpoint.part(TEXT_PREFIX).items() if not k.endswith("position_ids")}
    if not any(key.startswith("text_model.") for key in model.state_dict()):
        weights = {key.removeprefix("text_model."): value for key, value in weights.items()}
    try:
        missing = model.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        raise checkpoint.misfit() from error
    if any(not key.endswith("position_ids") for key in missing):
        raise checkpoint.misfit()
    return model
