"""The finetune leaves style words their meaning, and what is drawn without any prompt as it was."""

import torch
import torch.nn.functional as F

from hyperdreambooth_ext.images.face import find_face
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.weights import LiDB
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, finetune
from hyperdreambooth_ext.personalize.starts import zero_start
from hyperdreambooth_ext.personalize.style_prior import StylePrior
from hyperdreambooth_ext.personalize.subject import prepare_subject


def learned(host, subject, **options) -> LiDB:
    start = zero_start(Architecture.of(host.linears()), Basis(), 2, torch.Generator().manual_seed(0))
    wanted = FinetuneOptions(steps=8, batch=4, **options)
    with host.frozen():
        return finetune(host, subject, start, wanted, torch.Generator().manual_seed(0)).lidb


def disobedience(host, subject, lidb: LiDB) -> tuple[float, float]:
    """How far predictions with a style, and those without a prompt, are from the frozen model's, on samples that nobody
    trained on."""
    with host.frozen(), torch.no_grad():
        prior = StylePrior.of(host, subject.prompt, subject.class_prompt, unprompted=0.5)
        lesson = prior.lesson(host, subject, 24, torch.Generator().manual_seed(99), micro_batch_size=24)
        with injected(host.linears(), Applied(lidb)):
            conditions = host.encode_prompts(prior.prompts)[lesson.styles]
            predicted = host.predict(lesson.noisy, lesson.timesteps, conditions)
        errors = F.mse_loss(predicted, lesson.wanted, reduction="none").mean((1, 2, 3))
        unprompted = lesson.styles == prior.prompts.index("")
        assert 0 < unprompted.sum() < len(unprompted)
        return float(errors[~unprompted].mean()), float(errors[unprompted].mean())


def test_with_the_prior_styles_and_pictures_without_a_prompt_stay_more_like_they_were(host, subject):
    with_prior, without = learned(host, subject, prior_batch=4, prior_weight=1.0), learned(host, subject, prior_batch=0)
    styled, unprompted = disobedience(host, subject, with_prior)
    styled_without, unprompted_without = disobedience(host, subject, without)
    assert styled < 0.8 * styled_without
    assert unprompted < 0.8 * unprompted_without


def test_lessons_looked_at_together_are_the_frozen_models_own_predictions(host, subject):
    with host.frozen(), torch.no_grad():
        prior = StylePrior.of(host, subject.prompt, subject.class_prompt)
        lessons = prior.lessons(host, subject, 2, torch.Generator().manual_seed(0), ahead=7, micro_batch_size=4)
        first = [next(lessons) for _ in range(4)]  # three from the first pass, one from the second
        for lesson in first:
            assert len(lesson.noisy) == 2
            # One of the noisier half and one of the other: every iteration sees both.
            assert (lesson.timesteps.diff().abs() > 100).all()
            alone = host.predict(lesson.noisy, lesson.timesteps, prior.general[lesson.styles])
            torch.testing.assert_close(lesson.wanted, alone, rtol=1e-4, atol=1e-4)
    assert len({tuple(lesson.timesteps.tolist()) for lesson in first}) == 4


def test_the_class_prompt_is_the_prompt_without_the_trigger(host, subject, sample_photo):
    assert subject.class_prompt == "a face"
    other = prepare_subject(sample_photo, find_face(sample_photo), host, "photo of xyz woman", 64, trigger="xyz")
    assert other.class_prompt == "photo of woman"


def test_the_text_encoder_can_be_trained_together_with_the_prior(host, subject):
    lidb = learned(host, subject, prior_batch=1, text=True)
    start = zero_start(Architecture.of(host.linears()), Basis(), 2, torch.Generator().manual_seed(0))
    text_layers = [layer.key for layer in start.architecture.layers if layer.key.startswith("lora_te")]
    assert text_layers
    assert any(not torch.equal(lidb.b_train[key], start.b_train[key]) or not torch.equal(
        lidb.a_train[key], start.a_train[key]) for key in text_layers)  # fmt: skip
