"""How far the finetune steps: as far as helps, whatever the scale of the network's weights."""

import math

import pytest
import torch

from hyperdreambooth_ext.errors import TrainingError
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.weights import StackedLiDB
from hyperdreambooth_ext.personalize.batch import Subject
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions, finetune
from hyperdreambooth_ext.personalize.optimizer import ScaledAdamW, longest_gain, relative_steps
from hyperdreambooth_ext.personalize.starts import first_weights
from tests.tiny import Tiny


@pytest.mark.parametrize("best", [0.001, 0.02, 0.5])
def test_the_step_with_the_lowest_loss_is_found_from_anywhere(best: float) -> None:
    assert longest_gain(lambda step: math.log(step / best) ** 2, 0.004) == pytest.approx(best, rel=0.01)


def test_steps_that_go_beyond_all_numbers_are_too_long() -> None:
    assert longest_gain(lambda step: math.nan if step > 0.0011 else -step, 0.004) == pytest.approx(0.001)


def test_a_loss_that_is_no_number_ends_the_search() -> None:
    with pytest.raises(TrainingError, match="full precision"):
        longest_gain(lambda step: math.nan, 0.004)


def test_layers_move_by_the_root_of_their_weights() -> None:
    steps = relative_steps({"small": 1.0, "large": 16.0})
    assert steps["large"] / steps["small"] == pytest.approx(4) and steps["large"] * steps["small"] == pytest.approx(1)


def test_each_row_takes_its_share_of_adamws_step() -> None:
    rows = torch.zeros(2, 3)
    optimizer = ScaledAdamW([rows], [torch.tensor([[1.0], [0.5]])], lr=0.1)
    optimizer.step([torch.ones(2, 3)])
    assert torch.allclose(rows, torch.tensor([[-0.1], [-0.05]]).expand(2, 3))


def test_rows_know_their_layers(tiny: Tiny) -> None:
    host = tiny.host()
    architecture = Architecture.of(host.linears())
    values = {layer.key: float(number) for number, layer in enumerate(architecture.layers)}
    lidb = tiny.hypernetwork().predict(torch.zeros(1, 3, 64, 64)).relaxed(2, torch.Generator().manual_seed(0))
    marked = lidb.map(lambda tensor: torch.zeros_like(tensor))
    stacked = StackedLiDB.of(marked, architecture.layers)
    moved = stacked.moved(
        column.expand_as(x) for column, x in zip(stacked.columns(values), stacked.parameters, strict=True)
    )
    for key, value in values.items():
        back = moved.within(marked)
        assert (back.a_train[key] == value).all() and (back.b_train[key] == value).all()


def learned(host: DiffusersHost) -> torch.Tensor:
    """What the model predicts after a short finetune from the gradient start."""
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    subject = Subject(torch.empty(0), noise, None, "a sks face")
    generator = torch.Generator().manual_seed(0)
    with host.frozen():
        first = first_weights("gradient", host, subject, None, 2, generator)
        done = finetune(host, subject, first, FinetuneOptions(steps=4), generator)
        with torch.no_grad(), injected(host.linears(), Applied(done.lidb)):
            prompts = host.encode_prompts(["a sks face"]).expand(2, -1, -1)
            return host.predict(noise, torch.tensor([300, 700]), prompts)


def test_a_rescaling_that_changes_no_prediction_changes_nothing_that_is_learned(tiny: Tiny) -> None:
    plain, rescaled = tiny.host(), tiny.host()
    for key, linear in rescaled.linears().items():
        by = {"to_q": 4.0, "to_k": 0.25}.get(key[-4:])  # exact in binary: nothing but the scale differs
        if by and key.startswith("lora_unet_"):
            linear.weight.data.mul_(by)
    noise, prompt = torch.randn(1, 4, 8, 8), plain.encode_prompts(["a face"])
    before = [host.predict(noise, torch.tensor([500]), prompt).detach() for host in (plain, rescaled)]
    assert torch.allclose(*before, atol=1e-4)
    after = [learned(host) for host in (plain, rescaled)]
    assert torch.allclose(*after, atol=0.02 * float(after[0].std()))
    assert not torch.allclose(after[0], before[0], atol=0.02 * float(after[0].std()))
