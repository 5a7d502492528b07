"""The networks of a checkpoint file as diffusers' and transformers' modules, float32, made without any network."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from .checkpoint import OPEN_CLIP_PREFIX, TEXT_PREFIXES, UNET_PREFIX, VAE_PREFIX, Checkpoint

# What diffusers and transformers raise on a configuration that is none, beside what they check themselves.
_MISFIT = (
    ValueError, LookupError, RuntimeError, OSError, TypeError, AttributeError, ArithmeticError, AssertionError,
)  # fmt: skip
_OPEN_CLIP_NAMES = {
    "transformer.resblocks.": "encoder.layers.", "token_embedding": "embeddings.token_embedding", "ln_1": "layer_norm1",
    "ln_2": "layer_norm2", "ln_final": "final_layer_norm", "c_fc": "fc1", "c_proj": "fc2", "attn.": "self_attn.",
}  # fmt: skip


def make_unet(checkpoint: Checkpoint) -> Any:
    """A UNet2DConditionModel. Raises ArchitectureError when the configuration is not that of the weights."""
    if checkpoint.family == "sd1":
        return _from_single_file(UNet2DConditionModel, checkpoint, UNET_PREFIX, original_config=checkpoint.config)
    # diffusers takes an SDXL's configuration for another model's where its widths are not those of the base model.
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = sdxl_unet_config(checkpoint.config["model"]["params"]["unet_config"]["params"])
        except _MISFIT as error:
            raise checkpoint.misfit() from error
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return _from_single_file(UNet2DConditionModel, checkpoint, UNET_PREFIX, config=folder, local_files_only=True)


def make_vae(checkpoint: Checkpoint) -> Any:
    """An AutoencoderKL. Raises ArchitectureError when the configuration is not that of the weights."""
    return _from_single_file(AutoencoderKL, checkpoint, VAE_PREFIX, original_config=checkpoint.config)


def make_clip(checkpoint: Checkpoint) -> CLIPTextModel:
    """SD 1.x's text encoder, SDXL's first. Raises ArchitectureError when the configuration is not that of the
    weights."""
    weights = checkpoint.part(TEXT_PREFIXES[checkpoint.family])
    return _text_encoder(CLIPTextModel, checkpoint, checkpoint.text_config(), weights)


def make_open_clip(checkpoint: Checkpoint) -> CLIPTextModelWithProjection:
    """SDXL's second text encoder; its sizes are those of its weights, 64 channels a head, as in bigG.

    Raises ArchitectureError when there are none such.
    """
    weights = checkpoint.part(OPEN_CLIP_PREFIX)
    try:
        vocabulary, width = weights["token_embedding.weight"].shape
        layers = {key.split(".")[2] for key in weights if key.startswith("transformer.resblocks.")}
        config = {
            "vocab_size": vocabulary, "hidden_size": width, "num_attention_heads": width // 64, "hidden_act": "gelu",
            "intermediate_size": len(weights["transformer.resblocks.0.mlp.c_fc.weight"]),
            "num_hidden_layers": len(layers),
            "max_position_embeddings": len(weights["positional_embedding"]),
            "projection_dim": weights["text_projection"].shape[1],
            "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1,
        }  # fmt: skip
        weights = _as_transformers(weights)
    except _MISFIT as error:
        raise checkpoint.misfit() from error
    return _text_encoder(CLIPTextModelWithProjection, checkpoint, config, weights)


def _from_single_file(model_class: Any, checkpoint: Checkpoint, prefix: str, **configuration: Any) -> Any:
    weights = {prefix + key: value for key, value in checkpoint.part(prefix).items()}
    try:
        model = model_class.from_single_file(weights, **configuration)
    except _MISFIT as error:
        raise checkpoint.misfit() from error
    if any(parameter.is_meta for parameter in model.parameters()):
        raise checkpoint.misfit()
    return model


def sdxl_unet_config(params: dict[str, Any]) -> dict[str, Any]:
    """`sgm`'s words for an SDXL's UNet -> arguments of UNet2DConditionModel."""
    widths = [params["model_channels"] * factor for factor in params["channel_mult"]]
    attends = [2**level in params["attention_resolutions"] for level in range(len(widths))]
    blocks = ["CrossAttn{}Block2D" if here else "{}Block2D" for here in attends]
    return {
        "sample_size": 128, "in_channels": params["in_channels"], "out_channels": params["out_channels"],
        "block_out_channels": widths, "layers_per_block": params["num_res_blocks"],
        "down_block_types": [name.format("Down") for name in blocks],
        "up_block_types": [name.format("Up") for name in reversed(blocks)],
        "transformer_layers_per_block": params["transformer_depth"], "cross_attention_dim": params["context_dim"],
        # diffusers calls the number of heads so.
        "attention_head_dim": [width // params["num_head_channels"] for width in widths],
        "use_linear_projection": params["use_linear_in_transformer"], "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": params["adm_in_channels"],
    }  # fmt: skip


def _as_transformers(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's names -> transformers'; open_clip holds q, k and v in one."""
    found = {}
    for key, value in weights.items():
        if key == "text_projection":
            found["text_projection.weight"] = value.T.contiguous()
        elif key == "positional_embedding":
            found["text_model.embeddings.position_embedding.weight"] = value
        elif key != "logit_scale":
            for old, new in _OPEN_CLIP_NAMES.items():
                key = key.replace(old, new)
            if ".in_proj_" in key:
                for name, part in zip("qkv", value.chunk(3), strict=True):
                    found["text_model." + key.replace("in_proj_", f"{name}_proj.")] = part
            else:
                found[f"text_model.{key}"] = value
    return found


def _text_encoder(
    kind: type[nn.Module], checkpoint: Checkpoint, config: dict[str, Any], weights: dict[str, torch.Tensor]
) -> Any:
    try:
        model = kind(CLIPTextConfig(**config))
    except _MISFIT as error:
        raise checkpoint.misfit() from error
    weights = {key: value for key, value in weights.items() if not key.endswith("position_ids")}
    if not any(key.startswith("text_model.") for key in model.state_dict()):
        # transformers 5 dropped this level.
        weights = {key.removeprefix("text_model."): value for key, value in weights.items()}
    try:
        missing = model.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        raise checkpoint.misfit() from error
    if any(not key.endswith("position_ids") for key in missing):
        raise checkpoint.misfit()
    return model
