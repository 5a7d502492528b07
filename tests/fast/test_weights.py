"""A LiDB's shape on SD 1.5, its delta, and what the start and the rank relaxation change: nothing."""

import pytest
import torch

from hyperdreambooth_ext.errors import ArchitectureError
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.weights import LiDB, StackedLiDB, zeros
from tests.conftest import SMALL, delta_of, random_lidb


def test_sd15_has_the_papers_layers_and_counts(sd15):
    keys = [layer.key for layer in sd15.layers]
    assert len(keys) == 192
    assert sum("_attn1_" in key or "_attn2_" in key for key in keys) == 128
    assert sum("_ff_net_0_proj" in key for key in keys) == 16
    assert sum(key.startswith("lora_te_") for key in keys) == 48
    # The paper's rank-1 LoRA has 386 K numbers; these layers give 385,344.
    assert sum(layer.in_features + layer.out_features for layer in sd15.layers) == 385_344


def test_a_rank_1_lidb_for_sd15_has_28800_numbers(sd15):
    assert zeros(sd15, Basis(), 1, torch.Generator()).numel() == 28_800


def test_zero_start_changes_nothing(sd15):
    lidb = zeros(sd15, Basis(), 2, torch.Generator().manual_seed(0))
    assert all(not delta_of(lidb, layer).any() for layer in sd15.layers[::24])


def test_the_factors_are_the_product_of_the_four_matrices(small_lidb):
    layer = small_lidb.architecture.layers[2]
    up_t, down = small_lidb.all_factors([layer])[layer.key]
    assert torch.allclose(up_t.mT @ down, delta_of(small_lidb, layer), atol=1e-6)
    assert torch.linalg.matrix_rank(up_t.mT @ down) == 2


def test_relaxing_the_rank_keeps_delta_and_adds_room(small_lidb):
    relaxed = small_lidb.relaxed(5, torch.Generator().manual_seed(1))
    assert relaxed.rank == 5
    for layer in small_lidb.architecture.layers:
        assert torch.allclose(delta_of(relaxed, layer), delta_of(small_lidb, layer), atol=1e-6)
    with pytest.raises(ValueError, match="cannot be relaxed"):
        relaxed.relaxed(2, torch.Generator())


def test_architectures_differ_when_a_shape_differs():
    other = Architecture((*SMALL.layers[:2], type(SMALL.layers[2])(SMALL.layers[2].key, 320, 1024)))
    assert other.fingerprint != SMALL.fingerprint


def test_a_model_without_attention_is_refused():
    with pytest.raises(ArchitectureError, match="no attention layers"):
        Architecture.of({"lora_unet_time_embed_0": torch.nn.Linear(4, 4)})


def test_lidbs_stack_to_a_batch_of_people():
    one, two = random_lidb(SMALL, seed=1), random_lidb(SMALL, seed=2)
    stacked = type(one)(
        SMALL, one.basis,
        {key: torch.stack([one.a_train[key], two.a_train[key]]) for key in one.a_train},
        {key: torch.stack([one.b_train[key], two.b_train[key]]) for key in one.b_train},
    )  # fmt: skip
    layer = SMALL.layers[0]
    assert torch.allclose(delta_of(stacked, layer)[1], delta_of(two, layer), atol=1e-6)


def test_stacked_numbers_give_the_same_factors_and_go_back_to_their_layers(small_lidb):
    stacked = StackedLiDB.of(small_lidb, SMALL.layers)
    assert len(stacked.parameters) == 5  # two output widths, three input widths
    for layer in SMALL.layers:
        up_t, down = stacked.all_factors()[layer.key]
        expected_up = small_lidb.basis.a_of(layer) @ small_lidb.a_train[layer.key]
        expected_down = small_lidb.b_train[layer.key] @ small_lidb.basis.b_of(layer)
        assert torch.allclose(up_t.mT, expected_up, atol=1e-6) and torch.allclose(down, expected_down, atol=1e-6)
    again = stacked.within(small_lidb)
    assert all(torch.equal(one, other) for one, other in zip(again.parameters, small_lidb.parameters, strict=True))
    stacked.parameters[0].mul_(2)
    assert not torch.equal(again.parameters[0], small_lidb.parameters[0])


def test_layers_may_differ_in_rank(small_lidb):
    ranks = {layer.key: rank for layer, rank in zip(SMALL.layers, (1, 2, 1), strict=True)}
    mixed = LiDB(
        SMALL, small_lidb.basis,
        {key: a[:, : ranks[key]] for key, a in small_lidb.a_train.items()},
        {key: b[: ranks[key]] for key, b in small_lidb.b_train.items()},
    )  # fmt: skip
    factors = mixed.all_factors(SMALL.layers)
    for layer in SMALL.layers:
        up_t, down = factors[layer.key]
        assert torch.allclose(up_t.mT @ down, delta_of(mixed, layer), atol=1e-5)
