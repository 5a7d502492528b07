"""Injection computes with W + ΔW, for one person or one per sample, and gives the model back."""

import functools

import pytest
import torch
from torch import nn

from hyperdreambooth_ext.errors import ArchitectureError
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.weights import LiDB
from tests.conftest import SMALL, delta_of, random_lidb


@pytest.fixture
def linears():
    torch.manual_seed(0)
    return {layer.key: nn.Linear(layer.in_features, layer.out_features) for layer in SMALL.layers}


LAYER = SMALL.layers[2]


def test_output_is_that_of_the_changed_weight(linears, small_lidb):
    linear, x = linears[LAYER.key], torch.randn(3, 7, LAYER.in_features)
    with injected(linears, Applied(small_lidb, unet=0.7)):
        output = linear(x)
    expected = nn.functional.linear(x, linear.weight + 0.7 * delta_of(small_lidb, LAYER), linear.bias)
    assert torch.allclose(output, expected, atol=1e-4)


def test_several_lidbs_add_up(linears):
    first, second = random_lidb(SMALL, seed=1), random_lidb(SMALL, seed=2)
    linear, x = linears[LAYER.key], torch.randn(1, 5, LAYER.in_features)
    with injected(linears, Applied(first, unet=0.5), Applied(second, unet=-1.0)):
        output = linear(x)
    weight = linear.weight + 0.5 * delta_of(first, LAYER) - delta_of(second, LAYER)
    assert torch.allclose(output, nn.functional.linear(x, weight, linear.bias), atol=1e-4)


def test_unet_and_text_encoder_have_their_own_multipliers(linears, small_lidb):
    text, x = SMALL.layers[0], torch.randn(1, 4, 64)
    with injected(linears, Applied(small_lidb, unet=1.0, text=0.0)):
        assert torch.equal(
            linears[text.key](x), nn.functional.linear(x, linears[text.key].weight, linears[text.key].bias)
        )


def test_each_sample_of_a_batch_can_have_its_own_person(linears):
    people = [random_lidb(SMALL, seed=seed) for seed in range(3)]
    batch = LiDB(
        SMALL, people[0].basis,
        {key: torch.stack([p.a_train[key] for p in people]) for key in people[0].a_train},
        {key: torch.stack([p.b_train[key] for p in people]) for key in people[0].b_train},
    )  # fmt: skip
    linear, x = linears[LAYER.key], torch.randn(3, 5, LAYER.in_features)
    with injected(linears, Applied(batch)):
        together = linear(x)
    for i, person in enumerate(people):
        with injected(linears, Applied(person)):
            assert torch.allclose(together[i], linear(x[i : i + 1])[0], atol=1e-4)


def test_gradients_reach_the_lidb_and_not_the_model(linears, small_lidb):
    lidb, linear = small_lidb.trainable(), linears[LAYER.key].requires_grad_(False)
    with injected(linears, Applied(lidb)):
        linear(torch.randn(1, 2, LAYER.in_features)).sum().backward()
    assert lidb.a_train[LAYER.key].grad.abs().sum() > 0 and lidb.b_train[LAYER.key].grad.abs().sum() > 0
    assert linear.weight.grad is None


def test_the_model_is_as_before_afterwards_even_after_an_error(linears, small_lidb):
    linear, x = linears[LAYER.key], torch.randn(1, 2, LAYER.in_features)
    before = linear(x)
    with pytest.raises(RuntimeError, match="on purpose"), injected(linears, Applied(small_lidb)):
        raise RuntimeError("on purpose")
    assert torch.equal(linear(x), before)
    assert not any("forward" in vars(module) for module in linears.values())


def test_another_architecture_is_refused_and_leaves_no_hook(linears, small_lidb):
    linears[LAYER.key] = nn.Linear(LAYER.in_features, LAYER.out_features + 32)
    with pytest.raises(ArchitectureError, match="another architecture"), injected(linears, Applied(small_lidb)):
        pass
    assert not any("forward" in vars(module) for module in linears.values())


@pytest.mark.parametrize("places", [3, 2000])  # where the change is added to the output, and to the weight
def test_output_and_gradients_are_those_of_autograd(linears, small_lidb, places):
    linear = linears[LAYER.key].requires_grad_(False)
    x, probe = torch.randn(2, places, LAYER.in_features), torch.randn(2, places, LAYER.out_features)
    results = []
    for ours in (True, False):
        lidb, inputs = small_lidb.trainable(), x.clone().requires_grad_()
        if ours:
            with injected(linears, Applied(lidb, unet=0.7)):
                output = linear(inputs)
                with torch.no_grad():  # as samplers run it, step after step
                    assert all(torch.allclose(linear(inputs), output, atol=1e-4) for _ in range(2))
        else:
            output = nn.functional.linear(inputs, linear.weight + 0.7 * delta_of(lidb, LAYER), linear.bias)
        wanted = [inputs, lidb.a_train[LAYER.key], lidb.b_train[LAYER.key]]
        results.append([output, *torch.autograd.grad((output * probe).sum(), wanted)])
    for one, other in zip(*results, strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()


def test_a_condition_that_all_samples_share_gives_what_copies_of_it_would(linears, small_lidb):
    linear, lidb = linears[LAYER.key].requires_grad_(False), small_lidb.trainable()
    shared, probe = torch.randn(1, 5, LAYER.in_features).expand(4, -1, -1), torch.randn(4, 5, LAYER.out_features)
    outputs, gradients = [], []
    for x in (shared, shared.contiguous()):
        with injected(linears, Applied(lidb)):
            outputs.append(linear(x))
        gradients.append(torch.autograd.grad((outputs[-1] * probe).sum(), lidb.a_train[LAYER.key])[0])
    assert outputs[0].stride(0) == 0 and outputs[1].stride(0) != 0
    assert torch.allclose(*outputs, atol=1e-5) and torch.allclose(*gradients, rtol=1e-4, atol=1e-4)


def test_autocast_is_heeded(linears, small_lidb):
    linear, x = linears[LAYER.key].requires_grad_(False), torch.randn(1, 5, LAYER.in_features)
    with injected(linears, Applied(small_lidb)):
        exact = linear(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = linear(x)
    assert rounded.dtype == torch.bfloat16 and torch.allclose(rounded.float(), exact, atol=0.1)


def test_what_other_programs_put_into_the_class_or_the_layer_still_runs(linears, small_lidb, monkeypatch):
    """The WebUI exchanges torch.nn.Linear.forward while it runs, and libraries give single layers a forward."""
    linear, x = linears[LAYER.key].requires_grad_(False), torch.randn(1, 5, LAYER.in_features)
    plain = nn.Linear.forward

    @functools.wraps(plain)
    def theirs(self, x):
        return plain(self, x) + 1

    with injected(linears, Applied(small_lidb)):
        expected = linear(x) + 1
        with monkeypatch.context() as patched:
            patched.setattr(nn.Linear, "forward", theirs)
            assert torch.allclose(linear(x), expected, atol=1e-4)
    own = linear.forward = lambda x: theirs(linear, x)
    with injected(linears, Applied(small_lidb)):
        assert torch.allclose(linear(x), expected, atol=1e-4)
    assert vars(linear)["forward"] is own
