"""The finetune can ask recognizers that read latents whether the person is seen."""

import pytest
import torch

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.hypernet.latent_identity import LatentIdentityEnsemble
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.weights import zeros
from hyperdreambooth_ext.personalize.batch import make_batch, with_prior
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, Identity, finetune
from hyperdreambooth_ext.personalize.personalize import Request, personalize
from hyperdreambooth_ext.personalize.prior_preservation import PriorPreservation
from hyperdreambooth_ext.sampling.schedule import add_noise, clean_latents, random_samples


@pytest.fixture
def hypernetwork(tiny):
    """The tiny one with recognizers that nobody taught: what they see is meaningless, but can be brought nearer."""
    torch.manual_seed(0)
    network = tiny.hypernetwork()
    network.carry(LatentIdentityEnsemble.untrained(2).eval().requires_grad_(False))
    return network


@pytest.fixture
def identity(host, subject, hypernetwork):
    return Identity.of(host, hypernetwork, subject.image)


def learned(host, subject, identity, weight=30.0):
    start = zeros(Architecture.of(host.linears()), Basis(), 2, torch.Generator().manual_seed(0))
    options = FinetuneOptions(steps=8, batch=4, lr=0.03, identity_weight=weight)
    with host.frozen():
        return finetune(host, subject, start, options, torch.Generator().manual_seed(0), identity=identity).lidb


def unlike(host, subject, lidb, identity) -> float:
    """What the recognizers lack in the photo under noise that nobody trained on."""
    with host.frozen(), torch.no_grad():
        latents, noise, timesteps = random_samples(host, subject.latents, 8, torch.Generator().manual_seed(9))
        alphas_cumprod = host.alphas_cumprod[timesteps]
        noisy = add_noise(latents, noise, alphas_cumprod)
        with injected(host.linears(), Applied(lidb)):
            predicted = host.predict(noisy, timesteps, host.encode_prompts([subject.prompt] * 8))
        guess = clean_latents(noisy, predicted, alphas_cumprod, host.prediction_type)
        return float(identity.per_sample(guess, alphas_cumprod).mean())


def test_what_is_learned_with_it_is_seen(host, subject, identity):
    asked, unasked = (learned(host, subject, asked_of) for asked_of in (identity, None))
    with_it, without = (unlike(host, subject, lidb, identity) for lidb in (asked, unasked))
    assert with_it < without - 0.01


def test_a_weight_of_zero_learns_the_same_as_no_recognizers(host, subject, identity):
    asked, without = learned(host, subject, identity, weight=0.0), learned(host, subject, None)
    assert all(torch.equal(asked.a_train[key], without.a_train[key]) for key in asked.a_train)


def test_a_start_from_a_hypernetwork_asks_the_recognizers_that_it_holds(host, sample_photo, hypernetwork):
    def after_two(start, weight):
        options = FinetuneOptions(steps=2, batch=2, prior_batch=0, identity_weight=weight)
        return personalize(Photo(sample_photo), Request("x", start, options), host, hypernetwork).lidb.a_train

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
            Identity.of(host, nobody, subject.image)


def test_prior_samples_are_nobodys(host, subject):
    with host.frozen(), torch.no_grad():
        prior = PriorPreservation.of(host, subject.prompt, "a face")
        prior_batch = prior.batch(host, subject.latents, 2, torch.Generator().manual_seed(0), micro_batch_size=2)
    batch = make_batch(host, subject, 4, torch.Generator().manual_seed(1), identity_weight=0.4)
    assert with_prior(batch, prior_batch, 0.1).identity_weights.tolist() == pytest.approx([0.1] * 4 + [0.0] * 2)
