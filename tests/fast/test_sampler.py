"""The small DDIM sampler: the mathematics against closed forms, the pictures against diffusers' solver."""

import numpy as np
import pytest
import torch

from hyperdreambooth_ext.cli import generate
from hyperdreambooth_ext.hosts.checkpoint import ddpm_alphas_cumprod
from hyperdreambooth_ext.sampling.sampler import Sampling, Stopped, sample
from hyperdreambooth_ext.sampling.schedule import (
    add_noise,
    ddim_step,
    trailing_timesteps,
    training_target,
)

ALPHAS = ddpm_alphas_cumprod(0.00085, 0.012, 1000)


def test_timesteps_fall_evenly_from_the_last_one():
    assert trailing_timesteps(4, 1000) == [999, 749, 499, 249]
    assert trailing_timesteps(1, 1000) == [999]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("next_timestep", [500, None])
def test_with_the_true_output_a_step_lands_on_the_forward_process(prediction_type, next_timestep):
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    alpha = ALPHAS[999]
    alpha_next = torch.tensor(1.0) if next_timestep is None else ALPHAS[next_timestep]
    noisy = add_noise(latents, noise, alpha[None])
    output = training_target(latents, noise, alpha[None], prediction_type)
    expected = add_noise(latents, noise, alpha_next[None])
    assert torch.allclose(ddim_step(noisy, output, alpha, alpha_next, prediction_type), expected, atol=1e-4)


def test_the_picture_is_the_one_that_diffusers_solver_draws(loaded_backend):
    with loaded_backend.model() as host:
        ours = sample(host, "a sks face", Sampling(steps=20, seed=1, size=64)).astype(int)
        settings = Sampling(steps=20, seed=1, size=64)
        theirs = generate.sample(host, ["a sks face"], [], [1], settings)[0].astype(int)
        other = sample(host, "a sks face", Sampling(steps=20, seed=2, size=64)).astype(int)
    assert ours.shape == (64, 64, 3)
    assert np.abs(ours - theirs).mean() < 0.25 * np.abs(ours - other).mean()


def test_it_stops_within_one_step(loaded_backend):
    steps = []
    with loaded_backend.model() as host, pytest.raises(Stopped):
        sample(host, "a face", Sampling(size=64), (), lambda: steps.append(1), lambda: len(steps) == 2)
    assert len(steps) == 2
