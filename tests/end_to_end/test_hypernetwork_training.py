"""Training steps on the tiny model: many people at once, on the diffusion loss, on targets, or on both."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hyperdreambooth_ext.hypernet.lesson import Batch, Described, Lesson, Preserved
from hyperdreambooth_ext.hypernet.targets import preoptimize
from hyperdreambooth_ext.hypernet.training import training_losses
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.sampling.schedule import add_noise, clean_latents


@pytest.fixture
def decoder(tiny):
    return tiny.hypernetwork().decoder.requires_grad_(True)


def people(count: int) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(3)) * 0.8


def test_targets_are_personal_and_fit_their_person(host, decoder):
    latents = people(2)
    with host.frozen():
        theta = preoptimize(
            host, decoder, lambda step: latents, "a sks face", torch.Generator().manual_seed(0), steps=8
        )
        assert theta.shape == (2, *decoder.head_bias.shape) and not theta.requires_grad
        assert not torch.allclose(theta[0], theta[1], atol=1e-3)
        again = preoptimize(
            host, decoder, lambda step: latents, "a sks face", torch.Generator().manual_seed(0), steps=8
        )
    assert torch.equal(theta, again)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.0, 1.0), (1.0, 0.5)])
def test_gradients_reach_the_decoder_and_not_the_model(host, decoder, alpha, beta):
    channels = decoder.features_in.in_features
    targets = torch.zeros(3, *decoder.head_bias.shape) if beta else None
    batch = Batch(torch.randn(3, 16, channels), people(3), ["a sks face"] * 3, targets)
    with host.frozen():
        losses = training_losses(host, decoder, batch, torch.Generator().manual_seed(0), Lesson(alpha, beta))
        losses["loss"].backward()
    assert decoder.head_weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in host.unet.parameters())
    assert ("diffusion" in losses) == bool(alpha)


def test_what_is_to_be_preserved_is_compared_under_the_weights_of_its_own_person(host, decoder):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 16, decoder.features_in.in_features, generator=generator)
    noise, timesteps = torch.randn(3, 4, 8, 8, generator=generator), torch.tensor([100, 500, 900])
    batch = Batch(features, people(3), ["a sks face"] * 3, noise=noise, timesteps=timesteps)
    noisy, at, prompts = people(1), torch.tensor([700]), ["a sks face, pencil sketch"]
    with host.frozen():
        general = host.encode_prompts(["a face, pencil sketch"])
        wanted = host.predict(noisy, at, general)
        kept = Preserved(torch.tensor([2]), noisy, at, prompts, general, weight=10.0)
        alone = training_losses(host, decoder, batch, generator)
        both = training_losses(host, decoder, replace(batch, preserved=kept), generator)
        with torch.no_grad(), injected(host.linears(), Applied(decoder.as_lidb(decoder(features[2:])))):
            changed = F.mse_loss(host.predict(noisy, at, host.encode_prompts(prompts)), wanted)
    assert changed > 1e-4
    torch.testing.assert_close(both["changed"], changed, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(both["diffusion"], alone["diffusion"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(both["loss"], alone["loss"] + 10 * changed, rtol=1e-3, atol=1e-5)


def test_words_say_what_the_model_with_the_persons_weights_shall_see(host, decoder):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 16, decoder.features_in.in_features, generator=generator)
    noise, timesteps = torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([300, 950])
    batch = Batch(features, people(2), ["a sks face"] * 2, noise=noise, timesteps=timesteps)
    with host.frozen(), torch.no_grad():
        embeds = host.encode_prompts(["an old man, bald", "a young woman, smiling", ""])
        described = Described(embeds[:2], embeds[2:], guidance=4.0)
        alone = training_losses(host, decoder, batch, generator)
        both = training_losses(host, decoder, replace(batch, described=described), generator, Lesson(words=3.0))
        alphas = host.alphas_cumprod[timesteps]
        noisy = add_noise(people(2), noise, alphas)

        def seen(output: torch.Tensor) -> torch.Tensor:
            return clean_latents(noisy, output, alphas, host.prediction_type)

        none, said = (seen(host.predict(noisy, timesteps, of)) for of in (embeds[2:].expand(2, -1, -1), embeds[:2]))
        with injected(host.linears(), Applied(decoder.as_lidb(decoder(features)))):
            theirs = seen(host.predict(noisy, timesteps, host.encode_prompts(["a sks face"] * 2)))
    far = (theirs - (none + 4 * (said - none))).square().mean((1, 2, 3))
    assert alphas[1] < 0.02  # nearly all is noise there: it counts less
    words = (far[0] + 10 * alphas[1] * far[1]) / 2
    torch.testing.assert_close(both["words"], words, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(both["loss"], alone["loss"] + 3 * words, rtol=1e-3, atol=1e-5)


def test_a_batch_hands_on_all_its_tensors_those_of_its_parts_too():
    described = Described(torch.zeros(2, 77, 8), torch.zeros(1, 77, 8), guidance=4.0)
    batch = Batch(torch.zeros(2, 4, 8), torch.zeros(2, 4, 2, 2), ["", ""], described=described)
    moved = batch.map(lambda tensor: tensor + 1)
    assert len(batch.tensors()) == 4 and all(float(tensor.min()) == 1 for tensor in moved.tensors())
    assert moved.described.guidance == 4.0 and moved.prompts == ["", ""]
