"""One iteration of the finetune: in how many passes it looks at its samples changes nothing but the memory."""

import pytest
import torch

from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.weights import zeros
from hyperdreambooth_ext.personalize.batch import make_batch
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, default_micro_batch_size, finetune


def learned(host, subject, micro_batch_size: int | None) -> tuple[torch.Tensor, list[float]]:
    """All numbers after three iterations of four noises and a style, and the losses."""
    start = zeros(Architecture.of(host.linears()), Basis(), 2, torch.Generator().manual_seed(0))
    losses: list[float] = []
    options = FinetuneOptions(steps=3, batch=4, micro_batch_size=micro_batch_size)
    with host.frozen():
        done = finetune(host, subject, start, options, torch.Generator().manual_seed(0),
                        lambda progress: losses.append(progress.loss))  # fmt: skip
    return torch.cat([tensor.flatten() for tensor in done.lidb.parameters]), losses


@pytest.mark.parametrize("micro_batch_size", [1, 2])
def test_samples_in_several_passes_teach_what_they_teach_in_one(host, subject, micro_batch_size):
    (whole, losses), (parts, losses_of_parts) = learned(host, subject, None), learned(host, subject, micro_batch_size)
    assert float((whole - parts).norm()) < 1e-3 * float(whole.norm())
    assert losses == pytest.approx(losses_of_parts, rel=1e-5)


def test_micro_batches_are_as_few_as_can_be_and_hold_every_sample_once(host, subject):
    batch = make_batch(host, subject, 10, torch.Generator().manual_seed(0))
    parts = list(batch.micro_batches(4))
    assert [len(part.noisy) for part in parts] == [3, 3, 4]
    assert torch.equal(torch.cat([part.timesteps for part in parts]), batch.timesteps)
    # A place of the face counts more than one outside; all together the samples count as one.
    assert float(batch.weights.mean((1, 2, 3)).sum()) == pytest.approx(1.0, rel=1e-5)
    assert batch.weights.max() > 2 * batch.weights.min()


def test_small_pictures_go_in_one_pass_and_large_ones_on_a_processor_two_by_two(host):
    assert default_micro_batch_size(host, torch.zeros(2, 4, 32, 32)) > 1000
    assert default_micro_batch_size(host, torch.zeros(2, 4, 64, 64)) == 2
