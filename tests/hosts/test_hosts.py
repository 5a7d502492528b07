"""Two hosts, one noise: diffusers' classes and the real `ldm` code agree, with and without a LiDB."""

import gc
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import save_file

from hyperdreambooth_ext.errors import ArchitectureError
from hyperdreambooth_ext.hosts.checkpoint import CONFIGS, read_checkpoint
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hosts.ldm import LdmHost
from hyperdreambooth_ext.hosts.naming import diffusers_name
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.layers import Architecture
from tests.conftest import random_lidb
from tests.hosts.ldm_model import ldm_model
from tests.tiny import SIZE

PROMPTS = ["a sks face, pencil sketch", "an old man with glasses"]


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    error = float((a - b).norm() / a.norm())
    print(f"relative error {error:.1e}")
    return error


@pytest.fixture(scope="module")
def both(tiny, tmp_path_factory):
    return tiny.host(), LdmHost(ldm_model(read_checkpoint(tiny.checkpoint), tmp_path_factory.mktemp("clip")))


@torch.no_grad()
def noise_of(host, lidb=None, latents=None):
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) if latents is None else latents
    applied = () if lidb is None else (Applied(lidb),)
    with injected(host.linears(), *applied):
        embeds = host.encode_prompts(PROMPTS[: len(latents)])
        return host.predict(latents, torch.tensor([120, 780])[: len(latents)], embeds)


def test_both_find_the_same_layers(both):
    one, other = (Architecture.of(host.linears()) for host in both)
    assert one == other and any(layer.key.startswith("lora_te_") for layer in one.layers)


def test_both_have_the_same_schedule(both):
    assert torch.equal(both[0].alphas_cumprod, both[1].alphas_cumprod)
    assert both[0].default_size == both[1].default_size == SIZE


def test_both_predict_the_same_noise(both):
    assert relative_error(*(noise_of(host) for host in both)) < 1e-4


def test_a_lidb_has_the_same_effect_in_both(both):
    lidb = random_lidb(Architecture.of(both[0].linears()), rank=2)
    changed = [noise_of(host, lidb) for host in both]
    assert relative_error(*changed) < 1e-4
    assert relative_error(noise_of(both[0]), changed[0]) > 0.01
    effects = [noise_of(host, lidb) - noise_of(host) for host in both]
    assert relative_error(*effects) < 1e-3


@torch.no_grad()
def test_both_see_and_draw_the_same(both):
    images = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = [host.encode_images(images) for host in both]
    assert relative_error(*latents) < 1e-4
    assert relative_error(*(host.decode_latents(latents[0]) for host in both)) < 1e-4


@pytest.mark.parametrize("i", [0, 1])
def test_a_frozen_model_is_given_back_as_it_was(both, i):
    host = both[i]
    weight = next(iter(host.linears().values())).weight
    weight.requires_grad_(True)
    with pytest.raises(RuntimeError), host.frozen():
        assert not weight.requires_grad
        raise RuntimeError
    assert weight.requires_grad


@pytest.mark.parametrize(
    ("ldm", "diffusers"),
    [
        (
            "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        ),
        ("input_blocks.8.1.proj_in", "down_blocks.2.attentions.1.proj_in"),
        (
            "middle_block.1.transformer_blocks.0.ff.net.0.proj",
            "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
        ),
        (
            "output_blocks.3.1.transformer_blocks.0.attn2.to_k",
            "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
        ),
        ("time_embed.0", "time_embed.0"),
    ],
)
def test_names_are_translated(ldm, diffusers):
    assert diffusers_name(ldm, 2) == diffusers


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(ArchitectureError, match="is no SD 1.x, SD 2.x or SDXL model"):
        LdmHost(torch.nn.Linear(1, 1))


@pytest.fixture(scope="module")
def random_sd15(tmp_path_factory):
    """A checkpoint of SD 1.5's full size with random weights, made by the real `ldm` code."""
    from ldm.models.autoencoder import AutoencoderKL
    from ldm.modules.diffusionmodules.openaimodel import UNetModel
    from omegaconf import OmegaConf
    from transformers import CLIPTextConfig, CLIPTextModel

    params = OmegaConf.load(CONFIGS / "sd15.yaml").model.params
    torch.manual_seed(0)
    unet = UNetModel(**params.unet_config.params)
    for parameter in unet.parameters():
        if not parameter.any():
            # ldm starts some layers at zero; random ones make the comparison see everything.
            torch.nn.init.normal_(parameter, std=0.02)
    parts = {
        "model.diffusion_model.": unet,
        "first_stage_model.": AutoencoderKL(**params.first_stage_config.params),
        "cond_stage_model.transformer.": CLIPTextModel(
            CLIPTextConfig(**json.loads((CONFIGS / "clip_l.json").read_text()))
        ),
    }
    path = tmp_path_factory.mktemp("sd15") / "random.safetensors"
    tensors = {prefix + k: v.half() for prefix, part in parts.items() for k, v in part.state_dict().items()
               if not k.endswith("position_ids") and not k.startswith("loss")}  # fmt: skip
    if not any(".text_model." in key for key in tensors):
        tensors = {k.replace("transformer.", "transformer.text_model.", 1): v for k, v in tensors.items()}
    save_file(tensors, path)
    del unet, parts, tensors
    gc.collect()
    return path


def test_a_bare_name_leads_into_no_other_folder(tiny, tmp_path, monkeypatch):
    home, config = tmp_path / "home", yaml.safe_load(tiny.checkpoint.with_suffix(".yaml").read_text())
    home.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text("{}")
    shutil.copy(tiny.checkpoint, home / "model.safetensors")
    config["model"]["params"]["cond_stage_config"]["params"]["version"] = "../elsewhere"
    (home / "model.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(home)
    checkpoint = read_checkpoint("model.safetensors")
    monkeypatch.setattr("hyperdreambooth_ext.hosts.checkpoint.read_text_config", lambda file, shapes: {"file": file})
    assert checkpoint.text_config()["file"] == CONFIGS / "clip_l.json"


@pytest.mark.slow
def test_full_size_sd15_agrees_too(random_sd15, sd15, tmp_path):
    """860 million random weights, one host at a time, on latents of 8 x 8."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    lidb = random_lidb(sd15, rank=1)
    results = []
    for make in (DiffusersHost, lambda path: LdmHost(ldm_model(read_checkpoint(path), tmp_path))):
        host = make(random_sd15)
        assert Architecture.of(host.linears()) == sd15
        results.append((noise_of(host, None, latents), noise_of(host, lidb, latents)))
        del host
        gc.collect()
    assert relative_error(results[0][0], results[1][0]) < 1e-4
    assert relative_error(results[0][1], results[1][1]) < 1e-4
    assert relative_error(results[0][0], results[0][1]) > 1e-3
