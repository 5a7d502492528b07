"""The model as diffusers holds it: from the checkpoint file of an SD 1.x or SDXL, offline."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from . import modules
from .checkpoint import TOKENIZER, read_checkpoint
from .conditioning import pack, size_ids, unpack
from .naming import kohya_linears, sgm_name, text_linears
from .single_file import make_clip, make_open_clip, make_unet, make_vae

_KEPT_TOKENS = 64


class DiffusersHost:
    """An SD 1.x or SDXL model out of diffusers' and transformers' classes. See `hosts.protocol.Host`.

    An SDXL's LiDB changes the UNet unless asked otherwise (`lidb.layers.GROUPS`); `linears()` has its two text encoders
    as well, for files that change them too.
    """

    family = "sd1"
    text_encoder_2: CLIPTextModelWithProjection | None = None

    def __init__(
        self,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        vae: Path | None = None,
        sha256: str = "",
    ) -> None:
        """Load `path`, with the VAE of another file in the place of its own (see `read_checkpoint`).

        Raises FileError or ArchitectureError, each a sentence for the user.
        """
        checkpoint = read_checkpoint(path, vae, sha256)
        params = checkpoint.config["model"]["params"]
        self.family = checkpoint.family
        self.device, self.dtype = torch.device(device), dtype
        self.checkpoint_name, self.checkpoint_hash = checkpoint.path.stem, checkpoint.sha256[:10]
        # An SDXL says so by a tensor of that name.
        v_prediction = params.get("parameterization") == "v" or "v_pred" in checkpoint.state_dict
        self.prediction_type = "v_prediction" if v_prediction else "epsilon"
        self.scale_factor = float(params.get("scale_factor", 0.18215))
        self.default_size = int(params["image_size"]) * 8
        self.alphas_cumprod = checkpoint.alphas_cumprod().to(self.device)
        self.unet = make_unet(checkpoint).to(self.device, dtype).eval()
        self.vae = make_vae(checkpoint).to(self.device, torch.float32).eval()
        self.text_encoder = make_clip(checkpoint).to(self.device, dtype).eval()
        if self.family == "sdxl":
            self.text_encoder_2 = make_open_clip(checkpoint).to(self.device, dtype).eval()
        self._prepare_tokens()

    def _prepare_tokens(self) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
        self._kept_tokens: dict[tuple[str, ...], torch.Tensor] = {}

    @property
    def capturable(self) -> bool:
        return self.device.type == "cuda"

    def linears(self) -> Mapping[str, nn.Linear]:
        if self.text_encoder_2 is None:
            return kohya_linears(self.unet, self.text_encoder)
        per_level = self.unet.config.layers_per_block
        unet = kohya_linears(self.unet, None, lambda name: sgm_name(name, per_level))
        return unet | text_linears("lora_te1", self.text_encoder) | text_linears("lora_te2", self.text_encoder_2)

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        latents = self.vae.encode(images.to(self.device, self.vae.dtype)).latent_dist.mean
        return (latents * self.scale_factor).float()

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latents.to(self.device, self.vae.dtype) / self.scale_factor).sample.float()

    def encode_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        """[B, 77, width]; for SDXL more rows follow that hold its pooled vector (see `conditioning`)."""
        tokens = self._tokens(tuple(prompts))
        if self.text_encoder_2 is None:
            return self.text_encoder(tokens)[0]
        first = self.text_encoder(tokens, output_hidden_states=True).hidden_states[-2]
        # After the first end of text the first encoder was trained with more of them, the second with zeros.
        zeros_after_end = tokens.where((tokens == self.tokenizer.eos_token_id).cumsum(1) <= 1, 0)
        second = self.text_encoder_2(zeros_after_end, output_hidden_states=True)
        crossattn = torch.cat([first, second.hidden_states[-2]], dim=2)
        return pack({"crossattn": crossattn, "vector": second.text_embeds})

    def _tokens(self, prompts: tuple[str, ...]) -> torch.Tensor:
        """int64 [B, 77] on the device; kept for the next time, since a training asks for the same ones at every step
        and a CUDA graph may not copy from the processor."""
        if prompts not in self._kept_tokens:
            if len(self._kept_tokens) >= _KEPT_TOKENS:
                self._kept_tokens.clear()
            tokens = self.tokenizer(
                list(prompts), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
            )
            # Made while somebody samples in inference mode, nothing could be trained with them afterwards.
            with torch.inference_mode(False):
                self._kept_tokens[prompts] = tokens.input_ids.clone().to(self.device)
        return self._kept_tokens[prompts]

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        embeds, added = prompt_embeds.to(self.dtype), None
        if self.text_encoder_2 is not None:
            condition = unpack(embeds, self.text_encoder_2.config.projection_dim)
            embeds, added = condition["crossattn"], {"text_embeds": condition["vector"], "time_ids": size_ids(latents)}
        noisy = latents.to(self.dtype)
        return self.unet(noisy, timesteps, encoder_hidden_states=embeds, added_cond_kwargs=added).sample.float()

    def recomputing(self) -> AbstractContextManager[None]:
        """Within this context a backward pass takes less memory and more time (see `modules.recomputed`)."""
        return modules.recomputed([BasicTransformerBlock, ResnetBlock2D])

    def frozen(self) -> AbstractContextManager[None]:
        return modules.frozen(self._parts())

    def close(self) -> None:
        """Give the weights' memory back, whoever still holds this host, which is of no use afterwards."""
        for part in self._parts():
            part.to_empty(device="meta")

    def _parts(self) -> list[nn.Module]:
        parts = (self.unet, self.vae, self.text_encoder, self.text_encoder_2)
        return [part for part in parts if part is not None]
