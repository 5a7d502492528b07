"""Training steps on the tiny model: many identities at once, on the diffusion loss, on targets, or on both."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hyperdreambooth_ext.hypernet.loss import LossConfig
from hyperdreambooth_ext.hypernet.targets import preoptimize
from hyperdreambooth_ext.hypernet.training import Batch, PriorSamples, training_losses
from hyperdreambooth_ext.lidb.injection import Applied, injected


@pytest.fixture
def decoder(tiny):
    return tiny.hypernetwork().decoder.requires_grad_(True)


def faces(count: int) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(3)) * 0.8


def test_targets_are_personal_and_fit_their_person(host, decoder):
    latents = faces(2)
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
    batch = Batch(torch.randn(3, 16, channels), faces(3), ["a sks face"] * 3, targets)
    with host.frozen():
        losses = training_losses(host, decoder, batch, torch.Generator().manual_seed(0), LossConfig(alpha, beta))
        losses["loss"].backward()
    assert decoder.head_weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in host.unet.parameters())
    assert ("diffusion" in losses) == bool(alpha)
    # The targets are zero.
    theta = decoder(batch.features)
    expected = alpha * losses.get("diffusion", 0) + beta * theta.square().sum(-1).mean()
    torch.testing.assert_close(losses["loss"], expected, rtol=1e-4, atol=1e-6)


def test_a_prior_sample_is_compared_under_the_weights_of_its_own_identity(host, decoder):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 16, decoder.features_in.in_features, generator=generator)
    noise, timesteps = torch.randn(3, 4, 8, 8, generator=generator), torch.tensor([100, 500, 900])
    batch = Batch(features, faces(3), ["a sks face"] * 3, noise=noise, timesteps=timesteps)
    noisy, at, prompts = faces(1), torch.tensor([700]), ["a sks face, pencil sketch"]
    with host.frozen():
        class_embeds = host.encode_prompts(["a face, pencil sketch"])
        wanted = host.predict(noisy, at, class_embeds)
        prior = PriorSamples(torch.tensor([2]), noisy, at, prompts, class_embeds, weight=10.0)
        alone = training_losses(host, decoder, batch, generator)
        both = training_losses(host, decoder, replace(batch, prior=prior), generator)
        with torch.no_grad(), injected(host.linears(), Applied(decoder.as_lidb(decoder(features[2:])))):
            changed = F.mse_loss(host.predict(noisy, at, host.encode_prompts(prompts)), wanted)
    assert changed > 1e-4
    torch.testing.assert_close(both["prior"], changed, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(both["diffusion"], alone["diffusion"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(both["loss"], alone["loss"] + 10 * changed, rtol=1e-3, atol=1e-5)
