"""The sampler: the mathematics against closed forms and against diffusers' solver."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from hyperdreambooth_ext.hosts.checkpoint import ddpm_alphas_cumprod
from hyperdreambooth_ext.sampling.sampler import Sampling, Stopped, denoised, sample, sample_many
from hyperdreambooth_ext.sampling.schedule import (
    add_noise,
    clean_latents,
    step_towards,
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
    clean = clean_latents(noisy, output, alpha[None], prediction_type)
    assert torch.allclose(step_towards(clean, noisy, alpha, alpha_next), expected, atol=1e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_latents_are_those_of_diffusers_solver(prediction_type):
    """With a model that no network is needed for: its output depends on latents and timestep, and bends."""

    def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        return torch.tanh(latents) * (0.5 + timestep / 1000)

    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type,
        timestep_spacing="trailing", final_sigmas_type="zero",
    )  # fmt: skip
    scheduler.set_timesteps(12)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs = noise.clone()
    for timestep in scheduler.timesteps:
        theirs = scheduler.step(predict(theirs, int(timestep)), timestep, theirs).prev_sample
    host = SimpleNamespace(alphas_cumprod=ALPHAS, prediction_type=prediction_type, device=torch.device("cpu"))
    ours = denoised(host, noise, trailing_timesteps(12, 1000), predict)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_batch_makes_the_pictures_of_its_seeds(loaded_backend):
    settings = Sampling(steps=4, size=64)
    with loaded_backend.model() as host:
        alone = sample(host, "a sks face", replace(settings, seed=2)).astype(int)
        pictures = sample_many(host, ["a sks face"] * 2, [1, 2], settings)
    assert pictures[1].shape == (64, 64, 3) and np.abs(pictures[1] - alone).mean() < 1
    assert np.abs(pictures[0] - alone).mean() > 1


def test_it_stops_within_one_step(loaded_backend):
    steps = []
    with loaded_backend.model() as host, pytest.raises(Stopped):
        sample(host, "a face", Sampling(size=64), (), lambda: steps.append(1), lambda: len(steps) == 2)
    assert len(steps) == 2
