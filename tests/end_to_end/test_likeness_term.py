"""The finetune can ask recognizers that read latents whether the person is seen."""

from dataclasses import replace

import pytest
import torch

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.hypernet.latent_identity import LatentIdentityEnsemble
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, finetune
from hyperdreambooth_ext.personalize.iteration import look_at
from hyperdreambooth_ext.personalize.likeness_term import LikenessTerm
from hyperdreambooth_ext.personalize.personalize import Request, personalize
from hyperdreambooth_ext.personalize.starts import zero_start
from hyperdreambooth_ext.personalize.style_prior import StylePrior
from hyperdreambooth_ext.sampling.schedule import add_noise, clean_latents


@pytest.fixture
def hypernetwork(tiny):
    """The tiny one with recognizers that nobody taught: what they see is meaningless, but can be brought nearer."""
    torch.manual_seed(0)
    network = tiny.hypernetwork()
    network.carry(LatentIdentityEnsemble.untrained(2).eval().requires_grad_(False))
    return network


@pytest.fixture
def likeness(host, subject, hypernetwork):
    return LikenessTerm.of(host, hypernetwork, subject.image, weight=30.0)


def learned(host, subject, likeness):
    start = zero_start(Architecture.of(host.linears()), Basis(), 2, torch.Generator().manual_seed(0))
    wanted = FinetuneOptions(steps=8, batch=4, prior_batch=1)
    with host.frozen():
        return finetune(host, subject, start, wanted, torch.Generator().manual_seed(0), likeness=likeness).lidb


def unlike(host, subject, lidb, likeness) -> float:
    """What the recognizers lack in the photo under noise that nobody trained on."""
    with host.frozen(), torch.no_grad():
        latents, noise, timesteps = subject.noisy_batch(host, 8, torch.Generator().manual_seed(9))
        alphas_cumprod = host.alphas_cumprod[timesteps]
        noisy = add_noise(latents, noise, alphas_cumprod)
        with injected(host.linears(), Applied(lidb)):
            predicted = host.predict(noisy, timesteps, host.encode_prompts([subject.prompt] * 8))
        guess = clean_latents(noisy, predicted, alphas_cumprod, host.prediction_type)
        return float(likeness.unlike(guess, alphas_cumprod).mean())


def test_what_is_learned_with_it_is_seen(host, subject, likeness):
    asked, unasked = (learned(host, subject, asked_of) for asked_of in (likeness, None))
    with_it, without = (unlike(host, subject, lidb, likeness) for lidb in (asked, unasked))
    assert with_it < without - 0.01


def test_a_weight_of_zero_learns_the_same_as_no_recognizers(host, subject, likeness):
    asked, without = learned(host, subject, replace(likeness, weight=0.0)), learned(host, subject, None)
    assert all(torch.equal(asked.a_train[key], without.a_train[key]) for key in asked.a_train)


def test_a_start_from_a_hypernetwork_asks_the_recognizers_that_it_holds(host, sample_photo, hypernetwork):
    def after_two(start, weight):
        options = FinetuneOptions(steps=2, batch=2, prior_batch=0, identity_weight=weight)
        return personalize(sample_photo, Request("x", start, options), host, hypernetwork).lidb.a_train

    def same(one, other):
        return all(torch.equal(one[key], other[key]) for key in one)

    assert same(after_two("hypernetwork", None), after_two("hypernetwork", 0.1))
    assert not same(after_two("hypernetwork", None), after_two("hypernetwork", 0.0))
    assert same(after_two("zero", None), after_two("zero", 0.0))
    hypernetwork.identity_net = None
    assert same(after_two("hypernetwork", None), after_two("hypernetwork", 0.0))


def test_a_hypernetwork_without_recognizers_says_so(host, subject, hypernetwork):
    hypernetwork.identity_net = None
    for nobody in (hypernetwork, None):
        with pytest.raises(UserError, match="no recognizers"):
            LikenessTerm.of(host, nobody, subject.image)


def test_styled_samples_are_nobodys(host, subject):
    with host.frozen(), torch.no_grad():
        prior = StylePrior.of(host, subject.prompt, subject.class_prompt)
        lesson = prior.lesson(host, subject, 2, torch.Generator().manual_seed(0), micro_batch_size=2)
    look = look_at(host, subject, subject.noisy_batch(host, 4, torch.Generator().manual_seed(1)), lesson, 0.1, 0.4)
    assert look.alike.tolist() == pytest.approx([0.1] * 4 + [0.0] * 2)
