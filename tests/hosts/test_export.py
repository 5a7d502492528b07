"""The exported LoRA in programs that have never heard of this extension: diffusers and ComfyUI."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import USE_PEFT_BACKEND
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from hyperdreambooth_ext.hosts.checkpoint import CONFIGS, TOKENIZER
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hosts.naming import kohya_linears, sgm_name, text_linears
from hyperdreambooth_ext.hosts.sidecar import read_sidecar
from hyperdreambooth_ext.hosts.single_file import sdxl_unet_config
from hyperdreambooth_ext.lidb.file import Info
from hyperdreambooth_ext.lidb.layers import DEFAULT_GROUPS, GROUPS, Architecture
from hyperdreambooth_ext.lidb.lora import export_lora
from tests.conftest import random_lidb
from tests.hosts.test_hosts import noise_of, relative_error
from tests.sdxl import make_small_sdxl

COMFYUI = json.loads((Path(__file__).parent / "facts" / "comfyui-lora-keys.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sdxl() -> Architecture:
    """All layers that a LiDB of an SDXL can change, read off the real classes on the meta device."""
    params = read_sidecar(CONFIGS / "sdxl.yaml")["model"]["params"]["unet_config"]["params"]
    big = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sdxl_unet_config(params))
        clip = CLIPTextModel(CLIPTextConfig(**json.loads((CONFIGS / "clip_l.json").read_text())))
        open_clip = CLIPTextModelWithProjection(CLIPTextConfig(**big, projection_dim=1280))
    linears = kohya_linears(unet, None, lambda name: sgm_name(name, 2))
    linears |= text_linears("lora_te1", clip) | text_linears("lora_te2", open_clip)
    return Architecture.of(linears, GROUPS)


def pipeline(host: DiffusersHost):
    from transformers import CLIPTokenizer

    tokenizer, scheduler = CLIPTokenizer.from_pretrained(TOKENIZER), DDIMScheduler()
    if host.text_encoder_2 is not None:
        return StableDiffusionXLPipeline(
            host.vae, host.text_encoder, host.text_encoder_2, tokenizer, tokenizer, host.unet, scheduler
        )
    return StableDiffusionPipeline(
        host.vae, host.text_encoder, tokenizer, host.unet, scheduler, None, None, requires_safety_checker=False
    )


@pytest.mark.skipif(not USE_PEFT_BACKEND, reason="diffusers loads LoRAs with peft and a newer transformers")
@pytest.mark.parametrize(("family", "groups"), [("sd1", DEFAULT_GROUPS), ("sdxl", DEFAULT_GROUPS), ("sdxl", GROUPS)])
def test_diffusers_loads_it_and_draws_the_same(tiny, tmp_path, family, groups):
    host = tiny.host() if family == "sd1" else DiffusersHost(make_small_sdxl(tmp_path).checkpoint)
    lidb = random_lidb(Architecture.of(host.linears(), groups), rank=2)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    blank, expected = noise_of(host, None, latents), noise_of(host, lidb, latents)
    export_lora(tmp_path / "anna_lora.safetensors", lidb, Info(name="anna", model_family=family))
    pipeline(host).load_lora_weights(str(tmp_path), weight_name="anna_lora.safetensors")
    assert relative_error(expected, noise_of(host, None, latents)) < 2e-3  # what float16 in the file rounds
    assert relative_error(expected, blank) > 0.01


def comfyui_keys(family: str) -> set[str]:
    """All that ComfyUI's loader knows of a full-size model of this family."""
    facts = COMFYUI[family]
    unet = {
        f"{block}_transformer_blocks_{depth}_{layer}"
        for block, depths in facts["unet"].items()
        for depth in range(depths)
        for layer in COMFYUI["unet_layers"]
    }
    text = {
        f"{prefix}_{index}_{layer}"
        for prefix, layers in facts["text"].items()
        for index in range(layers)
        for layer in COMFYUI["text_layers"]
    }
    return unet | text


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_comfyui_knows_every_key(sd15, sdxl, tmp_path, family):
    architecture = {"sd1": sd15, "sdxl": sdxl}[family]
    export_lora(tmp_path / "lora.safetensors", random_lidb(architecture), Info(name="anna", model_family=family))
    keys = {key.partition(".")[0] for key in load_file(tmp_path / "lora.safetensors")}
    parts = {key.partition(".")[2] for key in load_file(tmp_path / "lora.safetensors")}
    assert parts == set(COMFYUI["parts"])
    assert len(keys) == {"sd1": 192, "sdxl": 806}[family] and keys <= comfyui_keys(family)
