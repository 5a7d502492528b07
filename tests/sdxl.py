"""SDXL made of the real `ldm` and open_clip code, which `sgm` inherited, of any size, with random weights.

`sgm` is in no package. What it adds to the UNet is a label embedding of two layers and transformers of several blocks.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from hyperdreambooth_ext.hosts.checkpoint import CONFIGS, TOKENIZER, ddpm_alphas_cumprod
from tests.tiny import AUTOENCODER, TEXT

# Two heads of 64 channels, which is what open_clip's text encoders have.
BIG_TEXT = {"width": 128, "heads": 2, "layers": 3, "vocab_size": 49408, "context_length": 77}
SMALL_UNET = {
    "adm_in_channels": 128 + 6 * 256, "num_classes": "sequential", "in_channels": 4, "out_channels": 4,
    "model_channels": 32, "attention_resolutions": [4, 2], "num_res_blocks": 2, "channel_mult": [1, 2, 4],
    "num_head_channels": 32, "use_linear_in_transformer": True, "transformer_depth": [1, 2, 3],
    "context_dim": TEXT["hidden_size"] + BIG_TEXT["width"],
}  # fmt: skip


class SgmModel(nn.Module):
    """A DiffusionEngine with what the WebUI adds to it (modules/sd_models_xl.py), as `LdmHost` is handed one."""

    def __init__(self, params: dict[str, Any], text: dict[str, Any], big_text: dict[str, Any]) -> None:
        super().__init__()
        from ldm.models.autoencoder import AutoencoderKL
        from transformers import CLIPTextConfig, CLIPTextModel

        self.model = nn.Module()
        self.model.diffusion_model = sgm_unet(params["network_config"]["params"])
        clip, open_clip = nn.Module(), nn.Module()
        clip.transformer = CLIPTextModel(CLIPTextConfig(**text))
        open_clip.model = _open_clip(big_text)
        self.conditioner = nn.Module()
        self.conditioner.embedders = nn.ModuleList([clip, open_clip])
        self.first_stage_model = AutoencoderKL(**params["first_stage_config"]["params"])
        self.scale_factor = params["scale_factor"]
        self.alphas_cumprod = ddpm_alphas_cumprod(0.00085, 0.012, 1000)
        self._depth = max(params["network_config"]["params"]["transformer_depth"])

    def get_learned_conditioning(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """For 1024 x 1024, as the WebUI does for prompts that come without a size."""
        from ldm.modules.diffusionmodules.util import timestep_embedding
        from transformers import CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
        tokens = tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        clip, open_clip = self.conditioner.embedders
        first = clip.transformer(tokens, output_hidden_states=True).hidden_states[-2]
        penultimate, pooled = _encoded(open_clip.model, tokens)
        sizes = torch.tensor([1024, 1024, 0, 0, 1024, 1024])
        vector = timestep_embedding(sizes, 256).flatten().expand(len(prompts), -1)
        return {"crossattn": torch.cat([first, penultimate], 2), "vector": torch.cat([pooled, vector], 1)}

    def apply_model(self, latents: torch.Tensor, timesteps: torch.Tensor, condition: dict) -> torch.Tensor:
        # `ldm` takes a list where each block of a transformer has a context of its own.
        contexts = [condition["crossattn"]] * self._depth
        return self.model.diffusion_model(latents, timesteps, context=contexts, y=condition["vector"])

    def encode_first_stage(self, images: torch.Tensor) -> torch.Tensor:
        return self.first_stage_model.encode(images).sample() * self.scale_factor

    def decode_first_stage(self, latents: torch.Tensor) -> torch.Tensor:
        return self.first_stage_model.decode(latents / self.scale_factor)


def sgm_unet(params: dict[str, Any]) -> nn.Module:
    """`ldm`'s UNetModel with `sgm`'s additions; `params` as in SDXL's configuration."""
    from ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    own = {key: value for key, value in params.items() if key not in ("adm_in_channels", "transformer_depth")}
    unet = UNetModel(
        **{**own, "num_classes": "continuous", "image_size": 32, "use_spatial_transformer": True, "legacy": False,
           "use_checkpoint": False}
    )  # fmt: skip
    width = 4 * params["model_channels"]
    unet.label_emb = nn.Sequential(
        nn.Sequential(nn.Linear(params["adm_in_channels"], width), nn.SiLU(), nn.Linear(width, width))
    )
    depths = dict(zip(params["channel_mult"], params["transformer_depth"], strict=True))
    head = params["num_head_channels"]
    for module in unet.modules():
        if isinstance(module, SpatialTransformer):
            channels = module.in_channels
            module.transformer_blocks = nn.ModuleList(
                BasicTransformerBlock(
                    channels, channels // head, head, context_dim=params["context_dim"], checkpoint=False
                )
                for _ in range(depths[channels // params["model_channels"]])
            )
    return unet


def _open_clip(text: dict[str, Any]) -> nn.Module:
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision = CLIPVisionCfg(layers=1, width=64, head_width=64, patch_size=16, image_size=16)
    model = CLIP(text["width"], vision, CLIPTextCfg(**text))
    del model.visual
    return model


def _encoded(model: nn.Module, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`sgm`'s FrozenOpenCLIPEmbedder2: the hidden states before the last block, and the pooled text.

    open_clip's own tokenizer fills up with zeros.
    """
    ends = (tokens == 49407).int().argmax(1)
    tokens = tokens.clone()
    for row, end in zip(tokens, ends, strict=True):
        row[end + 1 :] = 0
    hidden = model.token_embedding(tokens) + model.positional_embedding
    blocks = model.transformer.resblocks
    first = getattr(model.transformer, "batch_first", False)
    for index, block in enumerate(blocks):
        if index == len(blocks) - 1:
            penultimate = hidden
        turned = hidden if first else hidden.permute(1, 0, 2)
        turned = block(turned, attn_mask=model.attn_mask)
        hidden = turned if first else turned.permute(1, 0, 2)
    pooled = model.ln_final(hidden)[torch.arange(len(tokens)), ends] @ model.text_projection
    return penultimate, pooled


def small_configuration() -> dict:
    """SDXL's, with small networks."""
    config = yaml.safe_load((CONFIGS / "sdxl.yaml").read_text(encoding="utf-8"))
    params = config["model"]["params"]
    params["network_config"]["params"] = SMALL_UNET
    params["first_stage_config"]["params"]["ddconfig"] = AUTOENCODER
    params["conditioner_config"]["params"]["emb_models"][0]["params"]["version"] = "clip"
    return config


def small_sgm() -> SgmModel:
    """The same one every time, each of its layers doing something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SgmModel(small_configuration()["model"]["params"], TEXT, BIG_TEXT)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1 and not parameter.any():
                    nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval()


def save_sdxl(model: nn.Module, path: Path, config: dict | None = None, text: dict | None = None) -> Path:
    """A checkpoint file in half precision, and beside it what says its sizes, if it has others than SDXL."""
    tensors = {}
    for key, value in model.state_dict().items():
        if key.endswith("position_ids") or key.endswith("attn_mask") or ".loss." in key:
            continue
        if key.startswith("conditioner.embedders.0.transformer.") and ".text_model." not in key:
            # transformers 5 dropped this level.
            key = key.replace(".transformer.", ".transformer.text_model.", 1)
        tensors[key] = value.half().contiguous()
    save_file(tensors, path)
    if config is not None:
        path.with_suffix(".yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (path.parent / "clip").mkdir(exist_ok=True)
        (path.parent / "clip" / "config.json").write_text(json.dumps(text), encoding="utf-8")
    return path


def make_small_sdxl(folder: Path) -> SimpleNamespace:
    """The file, and the model that it holds, its weights rounded as in the file."""
    model = small_sgm().half().float()
    model.alphas_cumprod = ddpm_alphas_cumprod(0.00085, 0.012, 1000)
    return SimpleNamespace(
        checkpoint=save_sdxl(model, folder / "small.safetensors", small_configuration(), TEXT), model=model
    )
