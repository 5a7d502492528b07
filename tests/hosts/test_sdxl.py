"""SDXL out of one file: diffusers' classes predict what the code that it was trained with predicts."""

import json

import pytest
import torch
import yaml

from hyperdreambooth_ext.cli.generate import generate
from hyperdreambooth_ext.errors import ArchitectureError
from hyperdreambooth_ext.hosts.checkpoint import CONFIGS
from hyperdreambooth_ext.hosts.conditioning import embedded_sizes, size_ids
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hosts.ldm import LdmHost
from hyperdreambooth_ext.hosts.naming import diffusers_name, sgm_name
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.lidb.file import load
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.personalize.personalize import Request, personalize, save
from hyperdreambooth_ext.sampling.sampler import Sampling
from tests.conftest import random_lidb
from tests.hosts.test_hosts import noise_of, relative_error
from tests.sdxl import SgmModel, make_small_sdxl, save_sdxl

LATENTS = torch.randn(2, 4, 8, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_small_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def both(small):
    return DiffusersHost(small.checkpoint), LdmHost(small.model)


def test_it_is_known_by_its_weights(both):
    assert [host.family for host in both] == ["sdxl", "sdxl"]
    assert [host.default_size for host in both] == [1024, 1024]
    assert torch.equal(both[0].alphas_cumprod, both[1].alphas_cumprod)


def test_both_hosts_name_the_same_layers_as_kohyas_tools_do(both):
    one, other = (Architecture.of(host.linears()) for host in both)
    assert one == other
    assert any(layer.key.startswith("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1") for layer in one.layers)
    assert not any("text_model" in layer.key for layer in one.layers)


@pytest.mark.parametrize("name", ["input_blocks.7.1.proj_in", "middle_block.1.norm", "output_blocks.5.1.proj_out"])
def test_names_are_translated_back(name):
    assert sgm_name(diffusers_name(name, 2), 2) == name
    assert sgm_name("time_embedding.linear_1", 2) == "time_embedding.linear_1"


@torch.no_grad()
def test_both_read_a_prompt_alike(both):
    embeds = [host.encode_prompts(["a sks face", ""]) for host in both]
    assert relative_error(*(embed[:, :77] for embed in embeds)) < 1e-4


def test_both_predict_the_same_noise_at_any_size(both):
    assert relative_error(*(noise_of(host, None, LATENTS) for host in both)) < 1e-4


def test_a_lidb_has_the_same_effect_in_both(both):
    lidb = random_lidb(Architecture.of(both[0].linears()), rank=2)
    changed = [noise_of(host, lidb, LATENTS) for host in both]
    assert relative_error(*changed) < 1e-4
    assert relative_error(noise_of(both[0], None, LATENTS), changed[0]) > 0.01


@torch.no_grad()
def test_the_size_is_told_to_the_unet_as_sgm_does(both):
    from ldm.modules.diffusionmodules.util import timestep_embedding

    assert size_ids(LATENTS).tolist() == [[64, 128, 0, 0, 64, 128]] * 2
    expected = timestep_embedding(torch.tensor([64, 128, 0, 0, 64, 128]), 256).flatten()
    assert torch.allclose(embedded_sizes(LATENTS)[1], expected, atol=1e-5)


@torch.no_grad()
def test_both_see_and_draw_the_same(both):
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = [host.encode_images(images) for host in both]
    assert relative_error(*latents) < 1e-4
    assert relative_error(*(host.decode_latents(latents[0]) for host in both)) < 1e-4


@torch.no_grad()
def test_a_file_may_change_both_text_encoders(both):
    host = both[0]
    keys = {f"lora_te{i}_text_model_encoder_layers_0_self_attn_q_proj" for i in (1, 2)}
    lidb = random_lidb(Architecture.of(host.linears(), ["sdxl_text_attention"]), rank=1)
    assert keys <= {layer.key for layer in lidb.architecture.layers}
    with injected(host.linears(), Applied(lidb)):
        changed = host.encode_prompts(["a sks face"])
    assert relative_error(host.encode_prompts(["a sks face"]), changed) > 1e-3


def test_gradients_reach_every_layer(both):
    host = both[0]
    lidb = random_lidb(Architecture.of(host.linears()), rank=1).trainable()
    with host.frozen(), injected(host.linears(), Applied(lidb)):
        embeds = host.encode_prompts(["a face"]).expand(2, -1, -1)
        loss = host.predict(LATENTS, torch.tensor([100, 700]), embeds).square().mean()
        gradients = torch.autograd.grad(loss, lidb.parameters)
    assert all(gradient.any() for gradient in gradients)


def test_a_face_is_learned_generated_with_and_exported(both, sample_photo, tmp_path):
    request = Request(name="anna", start="gradient", size=64, options=FinetuneOptions(steps=2, batch=2))
    result = personalize(Photo(sample_photo), request, both[0])
    assert result.info.model_family == "sdxl" and result.steps == 2
    save(result, tmp_path)
    prompts = ("a sks face", "a sks face <lidb:anna:1>")
    blank, with_tag = (generate(both[0], prompt, tmp_path, Sampling(2, 4, 64)) for prompt in prompts)
    assert blank.shape == (64, 64, 3) and (blank != with_tag).any()


@pytest.mark.parametrize("start", ["gradient", "zero", "hypernetwork"])
def test_both_text_encoders_are_learned_where_that_is_asked_for(both, sample_photo, tmp_path, start):
    host = both[0]
    config = HypernetworkConfig(
        Architecture.of(host.linears()), encoder="mobilenetv3_small_050", image_size=64, width=32
    )
    hypernetwork = Hypernetwork(config).eval() if start == "hypernetwork" else None
    options = FinetuneOptions(steps=2, lr=0.03, batch=2, rank=2, text=True, identity_weight=0.0)
    request = Request(name="anna", start=start, size=64, options=options)
    result = personalize(Photo(sample_photo), request, host, hypernetwork)
    path = save(result, tmp_path)
    lidb, _ = load(path)
    # What the first encoder's last layer says is not asked for.
    learned = {key[:9] for key, values in lidb.a_train.items() if values.any()}
    assert {"lora_te1_", "lora_te2_"} < learned
    with injected(host.linears(), Applied(lidb)):
        changed = host.encode_prompts(["a sks face"])
    assert relative_error(host.encode_prompts(["a sks face"]), changed) > 1e-4


def test_a_v_prediction_model_says_so_by_a_tensor(small, tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "small.safetensors"
    save_file(load_file(small.checkpoint) | {"v_pred": torch.zeros(())}, path)
    for beside in (small.checkpoint.with_suffix(".yaml"), small.checkpoint.parent / "clip"):
        (tmp_path / beside.name).symlink_to(beside)
    assert DiffusersHost(path).prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("conditioner.embedders.0.model.ln_final.weight", "SDXL's refiner"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "SD 3"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "FLUX"),
        ("layers.0.attention.bitsandbytes__nf4", "quantized"),
        ("anything", "none that is known here"),
    ],
)
def test_other_models_are_told_by_name(tmp_path, key, name):
    from safetensors.torch import save_file

    save_file({key: torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ArchitectureError, match=name):
        DiffusersHost(tmp_path / "other.safetensors")


def test_an_sdxl_of_other_sizes_than_its_configuration_is_told_in_a_sentence(small, tmp_path):
    path = tmp_path / "small.safetensors"
    path.symlink_to(small.checkpoint)
    with pytest.raises(ArchitectureError, match="does not fit the configuration sdxl.yaml"):
        DiffusersHost(path)


@pytest.fixture
def wide(tmp_path):
    """A model of SDXL's full widths, with one block in each transformer of the UNet: all 70 take 14 GB of memory.

    That full depth has the same names is seen on the meta device (test_export).
    """
    config = yaml.safe_load((CONFIGS / "sdxl.yaml").read_text(encoding="utf-8"))
    params = config["model"]["params"]
    params["network_config"]["params"]["transformer_depth"] = [1, 1, 1]
    params["conditioner_config"]["params"]["emb_models"][0]["params"]["version"] = "clip"
    text = json.loads((CONFIGS / "clip_l.json").read_text(encoding="utf-8"))
    big = {"width": 1280, "heads": 20, "layers": 2, "vocab_size": 49408, "context_length": 77}
    model = SgmModel(params, text, big).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
            parameter.copy_(parameter.half())
    save_sdxl(model, tmp_path / "wide.safetensors", config, text)
    return tmp_path / "wide.safetensors", model


@pytest.mark.slow
def test_full_widths_agree_too(wide):
    path, model = wide
    latents = LATENTS[:1, :, :, :8]
    one, other = LdmHost(model), DiffusersHost(path)
    architecture = Architecture.of(one.linears())
    assert Architecture.of(other.linears()) == architecture
    lidb = random_lidb(architecture, rank=1)
    plain, changed = ([noise_of(host, of, latents) for host in (one, other)] for of in (None, lidb))
    assert relative_error(*plain) < 1e-4
    assert relative_error(*changed) < 1e-4
    assert relative_error(plain[0], changed[0]) > 1e-3
