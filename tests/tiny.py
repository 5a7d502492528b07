"""A Stable Diffusion 1 of the smallest kind with random weights, and a hypernetwork for it, made in a second or two.

What tests mechanics runs on these: a test of what a bundled model has learned is the only one that needs it.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from hyperdreambooth_ext.hosts.checkpoint import TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.file import load_hypernetwork, save_hypernetwork
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.lidb.layers import Architecture

if TYPE_CHECKING:
    from hyperdreambooth_ext.hosts.diffusers import DiffusersHost

SIZE = 64
WIDTH = 32
TEXT = {
    "vocab_size": 49408, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
    "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1,
}  # fmt: skip
# `ldm` normalizes in 32 groups, so no width is less than 32.
UNET = {
    "image_size": SIZE // 8, "in_channels": 4, "out_channels": 4, "model_channels": WIDTH,
    "attention_resolutions": [1, 2], "num_res_blocks": 1, "channel_mult": [1, 2], "num_heads": 4,
    "use_spatial_transformer": True, "transformer_depth": 1, "context_dim": WIDTH, "use_checkpoint": False,
    "legacy": False,
}  # fmt: skip
AUTOENCODER = {
    "double_z": True, "z_channels": 4, "resolution": SIZE, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Tiny:
    """The files, each with what belongs beside it, in a folder of their own."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "tiny.safetensors"

    @property
    def hypernetwork_file(self) -> Path:
        return self.folder / "tiny-hypernetwork.safetensors"

    @cached_property
    def architecture(self) -> Architecture:
        return Architecture.of(self.host().linears())

    def host(self, **keywords: Any) -> "DiffusersHost":
        """A model of one's own, loaded anew."""
        from hyperdreambooth_ext.hosts.diffusers import DiffusersHost

        return DiffusersHost(self.checkpoint, **keywords)

    def hypernetwork(self) -> Hypernetwork:
        """One of one's own, loaded anew."""
        return load_hypernetwork(self.hypernetwork_file)


def make_tiny(folder: Path) -> Tiny:
    """Write the checkpoint, its configuration and its hypernetwork into `folder`, the same ones every time."""
    tiny = Tiny(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(_weights(), tiny.checkpoint)
        tiny.checkpoint.with_suffix(".yaml").write_text(yaml.safe_dump(_configuration()), encoding="utf-8")
        (folder / "clip").mkdir()
        (folder / "clip" / "config.json").write_text(json.dumps(TEXT), encoding="utf-8")
        save_hypernetwork(tiny.hypernetwork_file, _hypernetwork(tiny))
    return tiny


def _configuration() -> dict:
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": {
        "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000, "first_stage_key": "jpg",
        "cond_stage_key": "txt", "image_size": SIZE // 8, "channels": 4, "cond_stage_trainable": False,
        "conditioning_key": "crossattn", "scale_factor": 0.18215, "use_ema": False,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": UNET},
        "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL", "params": {
            "embed_dim": 4, "ddconfig": AUTOENCODER, "lossconfig": {"target": "torch.nn.Identity"}}},
        "cond_stage_config": {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
                              "params": {"version": "clip"}},
    }}}  # fmt: skip


def _weights() -> dict[str, torch.Tensor]:
    from ldm.modules.diffusionmodules.model import Decoder, Encoder
    from ldm.modules.diffusionmodules.openaimodel import UNetModel
    from transformers import CLIPTextConfig, CLIPTextModel

    quant_conv = nn.Conv2d(8, 8, 1)
    with torch.no_grad():
        # Latents of a spread of about one, as a learned encoder's are once they are scaled.
        quant_conv.weight.mul_(25)
    autoencoder = nn.ModuleDict({
        "encoder": Encoder(**AUTOENCODER), "decoder": Decoder(**AUTOENCODER),
        "quant_conv": quant_conv, "post_quant_conv": nn.Conv2d(4, 4, 1),
    })  # fmt: skip
    unet = UNetModel(**UNET)
    for parameter in unet.parameters():
        if parameter.ndim > 1 and not parameter.any():
            # `ldm` starts some layers at zero, behind which nothing would be seen or learned.
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    text = CLIPTextModel(CLIPTextConfig(**TEXT)).state_dict()
    if not any(key.startswith("text_model.") for key in text):
        # transformers 5 dropped this level.
        text = {f"text_model.{key}": value for key, value in text.items()}
    parts = {UNET_PREFIX: unet.state_dict(), VAE_PREFIX: autoencoder.state_dict(), TEXT_PREFIX: text}
    return {
        prefix + key: value.half()
        for prefix, part in parts.items()
        for key, value in part.items()
        if not key.endswith("position_ids")
    }


def _hypernetwork(tiny: Tiny) -> Hypernetwork:
    """One that nobody taught, whose predictions and identities differ from face to face all the same."""
    host = tiny.host()
    config = HypernetworkConfig(
        Architecture.of(host.linears()), encoder="mobilenetv3_small_050", image_size=SIZE, width=WIDTH,
        identity_width=128, identity_nets=2, checkpoint=host.checkpoint_name, checkpoint_hash=host.checkpoint_hash,
    )  # fmt: skip
    network = Hypernetwork(config).eval()
    with torch.no_grad():
        network.decoder.head_weight.normal_(0, 0.005)
        network.decoder.identity_weight.normal_()
    return network
