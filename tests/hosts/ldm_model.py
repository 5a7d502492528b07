"""The real `ldm` code with the weights of a checkpoint file."""

from pathlib import Path

import torch
from omegaconf import OmegaConf
from transformers import CLIPTextConfig, CLIPTextModel

from hyperdreambooth_ext.hosts.checkpoint import TOKENIZER, Checkpoint


def ldm_model(checkpoint: Checkpoint, folder: Path) -> torch.nn.Module:
    """A LatentDiffusion in eval mode, float32. `folder` takes the files that its text embedder is made from."""
    from ldm.util import instantiate_from_config

    # FrozenCLIPEmbedder reads a folder of transformers' kind; its weights are then replaced with the checkpoint's.
    CLIPTextModel(CLIPTextConfig(**checkpoint.text_config())).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((TOKENIZER / name).read_bytes())
    config = OmegaConf.create(checkpoint.config)
    config.model.params.cond_stage_config.params = {"version": str(folder), "device": "cpu"}
    model = instantiate_from_config(config.model)
    weights = {key: value.float() for key, value in checkpoint.state_dict.items()}
    if not any(".text_model." in key for key in model.state_dict()):
        # transformers 5 dropped this level.
        weights = {key.replace(".text_model.", "."): value for key, value in weights.items()}
    unexpected = model.load_state_dict(weights, strict=False).unexpected_keys
    assert not unexpected, unexpected
    return model.eval()
