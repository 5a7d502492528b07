"""The .yaml beside a checkpoint and its text encoder's config.json: a stranger's words about sizes, checked first.

Both describe what is then built. A number that no Stable Diffusion has would build for hours, or not fit into memory.
"""

import json
import math
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 100_000
_MAX_VALUES, _MAX_NUMBER, _MAX_LIST = 2000, 65_536, 32
# How often a part is repeated: the numbers that multiply.
_COUNTS = {"num_res_blocks": 8, "transformer_depth": 16}
# What `sgm` writes in its code rather than in its configurations.
_SDXL = {"linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000, "image_size": 128}
_TEXT_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings")
_TEXT_NAMES = (
    *_TEXT_SIZES, "projection_dim", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


def read_sidecar(path: Path) -> dict[str, Any]:
    """An LDM configuration with all that the hosts ask it for; that of an SDXL, in `sgm`'s words, is put into `ldm`'s.

    Raises ValueError or OSError when it is none.
    """
    try:
        config = yaml.safe_load(_text(path))
        _check_values(config)
        params = config["model"]["params"]
        if "network_config" in params:
            parts = {"unet_config": params["network_config"], "cond_stage_config": params["conditioner_config"]}
            config["model"]["params"] = params = _SDXL | parts | params
        _check_params(params)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"it is no configuration of a Stable Diffusion ({type(error).__name__})") from error
    return config


def read_text_config(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Arguments of transformers' CLIPTextConfig out of a config.json; `shapes` are those of the text encoder's weights.

    Raises ValueError or OSError when it describes another text encoder, so none of its size is ever made.
    """
    try:
        values = json.loads(_text(path))
        settings = {name: values[name] for name in _TEXT_NAMES if name in values}
        _check_values(settings)
        layers = {name.split(".")[3] for name in shapes if name.startswith("text_model.encoder.layers.")}
        found = {
            "vocab_size": shapes["text_model.embeddings.token_embedding.weight"][0],
            "hidden_size": shapes["text_model.embeddings.token_embedding.weight"][1],
            "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
            "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
            "num_hidden_layers": len(layers),
        }
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"it is no text encoder's configuration ({type(error).__name__})") from error
    for name, size in found.items():
        if settings.get(name) != size:
            raise ValueError(f"its {name} is not that of the weights")
    heads = settings.get("num_attention_heads")
    if type(heads) is not int or not heads > 0 or found["hidden_size"] % heads:
        raise ValueError("its number of attention heads cannot be")
    return settings


def _text(path: Path) -> str:
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path.name} is larger than any configuration")
    return content.decode("utf-8")


def _check_values(config: Any) -> None:
    """No more values than a configuration has, no number out of proportion. An alias counts each time it is used."""
    waiting, seen = [("", config)], 0
    while waiting:
        name, value = waiting.pop()
        seen += 1
        if seen > _MAX_VALUES:
            raise ValueError("it holds more values than any configuration")
        if isinstance(value, dict):
            waiting += [(str(key)[:100], inner) for key, inner in value.items()]
        elif isinstance(value, list):
            if len(value) > _MAX_LIST:
                raise ValueError(f"{name} is longer than any configuration's")
            waiting += [(name, inner) for inner in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is no number")
        elif isinstance(value, int) and abs(value) > _COUNTS.get(name, _MAX_NUMBER):
            raise ValueError(f"{name} is larger than any configuration's")


def _check_params(params: dict[str, Any]) -> None:
    start, end, timesteps = float(params["linear_start"]), float(params["linear_end"]), params["timesteps"]
    if not 0 < start < 1 or not 0 < end < 1 or type(timesteps) is not int or not 1 <= timesteps <= 10_000:
        raise ValueError("its schedule cannot be")
    size = params["image_size"]
    if type(size) is not int or not 1 <= size <= 512:
        raise ValueError("its image_size cannot be")
    if not 0 < float(params.get("scale_factor", 0.18215)) < 100:
        raise ValueError("its scale_factor cannot be")
    for part in (params["unet_config"]["params"], params["first_stage_config"]["params"]["ddconfig"]):
        if not isinstance(part, dict):
            raise ValueError("its parts are no tables")
    if not isinstance(params["cond_stage_config"], dict):
        raise ValueError("its parts are no tables")
