"""Training steps on the embedded model: many people at once, on the diffusion loss, on targets, or on both."""

import pytest
import torch

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.targets import preoptimise
from hyperdreambooth_ext.hypernet.training import Batch, Lesson, training_losses
from hyperdreambooth_ext.standalone.models import CHECKPOINT, fitting_hypernetwork


@pytest.fixture(scope="module")
def host():
    return DiffusersHost(CHECKPOINT)


@pytest.fixture
def decoder(host):
    return fitting_hypernetwork(host)[0].decoder.requires_grad_(True)


def people(count: int) -> torch.Tensor:
    return torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(3)) * 0.8


def test_targets_are_personal_and_fit_their_person(host, decoder):
    latents = people(2)
    with host.frozen():
        theta = preoptimise(
            host, decoder, lambda step: latents, "a sks face", torch.Generator().manual_seed(0), steps=8
        )
        assert theta.shape == (2, *decoder.head_bias.shape) and not theta.requires_grad
        assert not torch.allclose(theta[0], theta[1], atol=1e-3)
        again = preoptimise(
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
