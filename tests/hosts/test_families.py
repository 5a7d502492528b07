"""The ldm host beyond SD 1.x, and what training on a borrowed model needs: gradients that reach the LiDB."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from hyperdreambooth_ext.errors import ArchitectureError
from hyperdreambooth_ext.hosts.conditioning import pack, unpack
from hyperdreambooth_ext.hosts.ldm import LdmHost
from hyperdreambooth_ext.hosts.modules import recomputed
from hyperdreambooth_ext.hypernet.loss import denoising_errors
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.personalize.personalize import Request, personalize
from tests.conftest import random_lidb
from tests.webui.real.small_checkpoints import sd2


@pytest.fixture(scope="module", params=["eps", "v"])
def sd2_model(request):
    """A small SD 2 with random weights, by the real `ldm` and open_clip, its blocks set to recompute."""
    from ldm.util import instantiate_from_config
    from open_clip.transformer import Transformer

    if "batch_first" in inspect.signature(Transformer).parameters:
        pytest.skip("the WebUI's `ldm` hands open_clip's text encoder its tokens first, as older ones want it")
    config = OmegaConf.create(sd2(request.param)).model
    config.params.cond_stage_config.params.device = "cpu"
    torch.manual_seed(0)
    model = instantiate_from_config(config).eval()
    for parameter in model.model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def gradients_of(host, lidb):
    lidb = lidb.trainable()
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with host.frozen():
        with injected(host.linears(), Applied(lidb)):
            embeds = host.encode_prompts(["a face"]).expand(2, -1, -1)
            loss = denoising_errors(host, latents, noise, torch.tensor([100, 700]), embeds).mean()
        # Outside, as the finetune does it.
        return torch.autograd.grad(loss, lidb.parameters)


def test_sd2_is_learned_on(sd2_model, sample_photo):
    host = LdmHost(sd2_model, "small")
    assert (host.family, host.default_size) == ("sd2", 128)
    assert host.prediction_type == {"eps": "epsilon", "v": "v_prediction"}[sd2_model.parameterization]
    request = Request(name="anna", start="gradient", options=FinetuneOptions(steps=2, batch=2))
    result = personalize(Photo(sample_photo), request, host)
    assert result.info.model_family == "sd2" and result.steps == 2
    assert all(layer.key.startswith("lora_unet_") for layer in result.lidb.architecture.layers)


def test_ldms_own_recomputation_would_lose_the_gradients_and_is_off_within(sd2_model):
    host = LdmHost(sd2_model)
    lidb = random_lidb(Architecture.of(host.linears()), rank=1)
    recomputing = [module for module in sd2_model.modules() if vars(module).get("checkpoint") is True]
    assert recomputing, "this model was made with use_checkpoint"
    assert all(gradient.any() for gradient in gradients_of(host, lidb))
    assert all(module.checkpoint is True for module in recomputing)


def test_recomputing_gives_the_same_gradients_and_the_classes_back(sd2_model):
    from ldm.modules.attention import BasicTransformerBlock
    from ldm.modules.diffusionmodules.openaimodel import ResBlock

    host = LdmHost(sd2_model)
    lidb = random_lidb(Architecture.of(host.linears()), rank=1)
    forwards = BasicTransformerBlock.forward, ResBlock.forward
    kept = gradients_of(host, lidb)
    with recomputed([BasicTransformerBlock, ResBlock]):
        again = gradients_of(host, lidb)
    assert (BasicTransformerBlock.forward, ResBlock.forward) == forwards
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(kept, again, strict=True))


def test_a_face_is_learned_alike_with_recomputation_which_graphics_cards_always_have(sd2_model, sample_photo):
    from ldm.modules.attention import BasicTransformerBlock
    from ldm.modules.diffusionmodules.openaimodel import ResBlock

    request = Request(name="anna", start="gradient", options=FinetuneOptions(steps=2, batch=2))
    plain = personalize(Photo(sample_photo), request, LdmHost(sd2_model, "small")).lidb
    with recomputed([BasicTransformerBlock, ResBlock]):
        again = personalize(Photo(sample_photo), request, LdmHost(sd2_model, "small")).lidb
    assert all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(plain.parameters, again.parameters, strict=True)
    )


def test_a_float16_unets_gradients_keep_their_direction(sd2_model, monkeypatch):
    """The network itself stays float32 here, for the CPU has no float16 layers; the host believes otherwise."""
    host = LdmHost(sd2_model)
    lidb = random_lidb(Architecture.of(host.linears()), rank=1)
    plain = gradients_of(host, lidb)
    apply_model = sd2_model.apply_model
    monkeypatch.setattr(sd2_model, "apply_model", lambda x, t, c: apply_model(x.float(), t, c.float()))
    host.dtype = torch.float16
    scaled = gradients_of(host, lidb)
    factor = 4 * 8 * 8 / 8
    for one, other in zip(plain, scaled, strict=True):
        assert torch.allclose(other, one * factor, rtol=0.05, atol=0.05 * other.abs().max())


@pytest.mark.parametrize("vector", [1, 64, 100, 2816])
def test_sdxls_condition_travels_in_one_tensor(vector):
    condition = {"crossattn": torch.randn(2, 77, 64), "vector": torch.randn(2, vector)}
    packed = pack(condition)
    assert packed.shape[0] == 2 and packed.shape[2] == 64
    assert all(torch.equal(value, condition[key]) for key, value in unpack(packed, vector).items())
    assert pack(condition["crossattn"]) is condition["crossattn"]


def test_sdxls_refiner_and_unclip_are_refused():
    unet = torch.nn.Module()
    unet.in_channels, unet.num_classes = 4, "sequential"
    unet.label_emb = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2560, 4)))
    model = torch.nn.Module()
    model.model = torch.nn.Module()
    model.model.diffusion_model = unet
    model.conditioner = torch.nn.Module()
    with pytest.raises(ArchitectureError, match="refiner"):
        LdmHost(model)
    model.conditioner = None
    model.cond_stage_model = SimpleNamespace(transformer=torch.nn.Module())
    with pytest.raises(ArchitectureError, match="unCLIP"):
        LdmHost(model)
