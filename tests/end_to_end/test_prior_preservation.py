"""The finetune leaves style words their meaning, and what is sampled without any prompt as it was."""

import torch
import torch.nn.functional as F

from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.weights import LiDB, zeros
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, finetune
from hyperdreambooth_ext.personalize.prior_preservation import PriorPreservation, class_prompt


def learned(host, subject, **options) -> LiDB:
    start = zeros(Architecture.of(host.linears()), Basis(), 2, torch.Generator().manual_seed(0))
    wanted = FinetuneOptions(steps=8, batch=4, **options)
    with host.frozen():
        return finetune(host, subject, start, wanted, torch.Generator().manual_seed(0)).lidb


def disobedience(host, subject, lidb: LiDB) -> tuple[float, float]:
    """How far predictions with a style, and those without a prompt, are from the frozen model's, on samples that nobody
    trained on."""
    with host.frozen(), torch.no_grad():
        prior = PriorPreservation.of(host, subject.prompt, "a face", unprompted=0.5)
        batch = prior.batch(host, subject.latents, 24, torch.Generator().manual_seed(99), micro_batch_size=24)
        with injected(host.linears(), Applied(lidb)):
            conditions = host.encode_prompts(prior.prompts)[batch.prompts]
            predicted = host.predict(batch.noisy, batch.timesteps, conditions)
        errors = F.mse_loss(predicted, batch.target, reduction="none").mean((1, 2, 3))
        unprompted = batch.prompts == prior.prompts.index("")
        assert 0 < unprompted.sum() < len(unprompted)
        return float(errors[~unprompted].mean()), float(errors[unprompted].mean())


def test_with_the_prior_styles_and_pictures_without_a_prompt_stay_more_like_they_were(host, subject):
    with_prior, without = learned(host, subject, prior_batch=4, prior_weight=1.0), learned(host, subject, prior_batch=0)
    styled, unprompted = disobedience(host, subject, with_prior)
    styled_without, unprompted_without = disobedience(host, subject, without)
    assert styled < 0.8 * styled_without
    assert unprompted < 0.8 * unprompted_without


def test_batches_looked_at_together_are_the_frozen_models_own_predictions(host, subject):
    with host.frozen(), torch.no_grad():
        prior = PriorPreservation.of(host, subject.prompt, "a face")
        batches = prior.batches(host, subject.latents, 2, torch.Generator().manual_seed(0), ahead=7, micro_batch_size=4)
        first = [next(batches) for _ in range(4)]  # three from the first pass, one from the second
        for batch in first:
            assert len(batch.noisy) == 2
            # One of the noisier half and one of the other: every iteration sees both.
            assert (batch.timesteps.diff().abs() > 100).all()
            alone = host.predict(batch.noisy, batch.timesteps, prior.class_cond[batch.prompts])
            torch.testing.assert_close(batch.target, alone, rtol=1e-4, atol=1e-4)
    assert len({tuple(batch.timesteps.tolist()) for batch in first}) == 4


def test_the_class_prompt_is_the_prompt_without_the_trigger():
    assert class_prompt("a sks face") == "a face"
    assert class_prompt("photo of xyz woman", "xyz") == "photo of woman"


def test_the_text_encoder_can_be_trained_together_with_the_prior(host, subject):
    lidb = learned(host, subject, prior_batch=1, text=True)
    start = zeros(Architecture.of(host.linears()), Basis(), 2, torch.Generator().manual_seed(0))
    text_layers = [layer.key for layer in start.architecture.layers if layer.key.startswith("lora_te")]
    assert text_layers
    assert any(not torch.equal(lidb.b_train[key], start.b_train[key]) or not torch.equal(
        lidb.a_train[key], start.a_train[key]) for key in text_layers)  # fmt: skip
