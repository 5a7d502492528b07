"""The finetune leaves style words their meaning."""

import pytest
import torch

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.weights import LiDB
from hyperdreambooth_ext.personalize.face import find_face
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, finetune
from hyperdreambooth_ext.personalize.starts import zero_start
from hyperdreambooth_ext.personalize.style_prior import StylePrior
from hyperdreambooth_ext.personalize.subject import prepare_subject
from hyperdreambooth_ext.standalone.models import CHECKPOINT


@pytest.fixture(scope="module")
def host():
    return DiffusersHost(CHECKPOINT)


@pytest.fixture(scope="module")
def subject(host, sample_photo):
    return prepare_subject(sample_photo, find_face(sample_photo), host, "a sks face", 128)


def learned(host, subject, **options) -> LiDB:
    start = zero_start(Architecture.of(host.linears()), Basis(), 2, torch.Generator().manual_seed(0))
    wanted = FinetuneOptions(steps=8, batch=4, **options)
    with host.frozen():
        return finetune(host, subject, start, wanted, torch.Generator().manual_seed(0)).lidb


def disobedience(host, subject, lidb: LiDB) -> float:
    """How far styled predictions are from the frozen model's, on samples that nobody trained on."""
    with host.frozen(), torch.no_grad():
        prior = StylePrior.of(host, subject)
        lesson = prior.lesson(host, subject, 12, torch.Generator().manual_seed(99))
        with injected(host.linears(), Applied(lidb)):
            return float(lesson.loss(host, host.encode_prompts(prior.prompts)))


def test_with_the_prior_styled_prompts_do_more_of_what_they_did_before(host, subject):
    with_prior, without = learned(host, subject, styled=4, style_weight=1.0), learned(host, subject, styled=0)
    assert disobedience(host, subject, with_prior) < 0.8 * disobedience(host, subject, without)


def test_the_class_prompt_is_the_prompt_without_the_trigger(host, subject, sample_photo):
    assert subject.class_prompt == "a face"
    other = prepare_subject(sample_photo, find_face(sample_photo), host, "photo of xyz woman", 64, trigger="xyz")
    assert other.class_prompt == "photo of woman"


def test_the_text_encoder_can_be_trained_together_with_the_prior(host, subject):
    lidb = learned(host, subject, styled=1, text=True)
    start = zero_start(Architecture.of(host.linears()), Basis(), 2, torch.Generator().manual_seed(0))
    text_layers = [layer.key for layer in start.architecture.layers if layer.key.startswith("lora_te")]
    assert text_layers
    assert any(not torch.equal(lidb.b_train[key], start.b_train[key]) or not torch.equal(
        lidb.a_train[key], start.a_train[key]) for key in text_layers)  # fmt: skip
