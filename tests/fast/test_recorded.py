"""A recorded step's loss brings its gradients along, and a batch can be copied tensor by tensor."""

import weakref
from types import SimpleNamespace

import pytest
import torch

from hyperdreambooth_ext.hypernet.training import Batch, PriorSamples
from hyperdreambooth_ext.pretrain.progress import Reporter
from hyperdreambooth_ext.pretrain.recorded import RecordedLosses
from hyperdreambooth_ext.pretrain.trainer import Trainer
from hyperdreambooth_ext.sampling.recorded import Recorded, RecordingFailed


def test_a_recorded_loss_brings_its_gradients_along():
    one, unused = torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)
    losses_of = RecordedLosses(
        lambda batch: {"loss": (one * batch).sum(), "size": one.sum()}, [one, unused], pytest.fail
    )
    losses = losses_of(torch.tensor([1.0, 2.0, 3.0]))
    assert losses.keys() == {"loss", "size"} and not any(loss.requires_grad for loss in losses.values())
    assert one.grad.tolist() == [1, 2, 3] and unused.grad is None


def test_a_step_that_cannot_be_recorded_goes_on_without_and_says_so_once(monkeypatch):
    def refuse(self, batch):
        raise RecordingFailed("no graph")

    monkeypatch.setattr(Recorded, "__call__", refuse)
    one, told = torch.zeros(3, requires_grad=True), []
    losses_of = RecordedLosses(lambda batch: {"loss": (one * batch).sum()}, [one], told.append)
    for _ in range(2):
        losses_of(torch.ones(3))
        assert one.grad.tolist() == [1, 1, 1]
    assert len(told) == 1 and "goes on without" in told[0]


def test_a_batch_is_mapped_with_its_prior_samples():
    prior = PriorSamples(
        torch.arange(2), torch.ones(2, 4, 1, 1), torch.tensor([5, 6]), ["a", "b"], torch.ones(2, 3, 4), 0.5
    )
    batch = Batch(torch.ones(4, 2, 3), torch.ones(4, 4, 1, 1), ["a"] * 4, prior=prior)
    copied = batch.map(torch.clone)
    assert copied.prompts == batch.prompts and copied.prior.prompts == ["a", "b"]
    assert copied.targets is None and copied.prior.weight == 0.5
    pairs = list(zip(batch.tensors(), copied.tensors(), strict=True))
    assert len(pairs) == 6
    assert all(torch.equal(one, other) and one is not other for one, other in pairs)


def test_the_time_of_a_step_is_taken_without_keeping_its_losses():
    """CUDA does not record a step while the losses of one before are alive."""
    alive: list[weakref.ref] = []

    class Timed(Trainer):
        def __init__(self) -> None:
            self.decoder, self._losses_of_batch = torch.nn.Linear(2, 1), None
            host = SimpleNamespace(frozen=torch.enable_grad)
            self.context = SimpleNamespace(host=host, reporter=Reporter())

        def losses_of(self, step, rng):
            assert not any(loss() is not None for loss in alive)
            loss = self.decoder(torch.ones(2)).sum()
            alive.append(weakref.ref(loss))
            return {"loss": loss}

    trainer = Timed()
    assert trainer.seconds_per_step(timed=3) > 0 and len(alive) == 4
    assert trainer.decoder.weight.grad is None
