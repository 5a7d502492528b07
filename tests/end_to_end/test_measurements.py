"""The benchmarks of time and memory run, and say what they are asked for."""

import pytest
import torch

from benchmarks import build_cost, full_size, growth, step
from benchmarks.compare.rows import ROWS
from benchmarks.random_host import sd15_architecture
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.embedder import FaceEmbedder
from hyperdreambooth_ext.hypernet.hypernetwork import WeightDecoder
from hyperdreambooth_ext.hypernet.training import training_losses
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from tests.conftest import sd15_layers


def test_everybody_takes_a_step_in_turn(tiny):
    ticks = iter(range(1000))
    times = step.step_times(
        tiny.host,
        FinetuneOptions(steps=step.WARM_UP + 1, batch=1),
        step.OTHERS,
        lambda: next(ticks),
    )
    assert list(times) == ["ours", *step.OTHERS] and all(of == [1] for of in times.values())


def test_a_rivals_step_trains_the_very_layers_that_a_lidb_changes(tiny):
    host = tiny.host()
    subject = step.Subject(torch.empty(0), torch.randn(2, 4, 8, 8), None, step.PROMPT)
    unet_layers = sum(key.startswith("lora_unet_") for key in (layer.key for layer in step.Architecture.of(
        host.linears()).layers))  # fmt: skip
    rival = step.Rival(host, subject, FinetuneOptions(batch=1), "peft")
    trained = [parameter for parameter in host.unet.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    rival()
    assert len(trained) == 2 * unet_layers
    # At first only one of each pair has a gradient: the other stands before a matrix of zeros.
    changed = sum(not torch.equal(one, other) for one, other in zip(before, trained, strict=True))
    assert changed >= unet_layers


def test_the_exponent_is_the_slope_between_logarithms():
    assert growth.exponent({1: 3.0, 2: 6.0, 4: 12.0}) == pytest.approx(1)
    assert growth.exponent({1: 3.0, 2: 12.0, 4: 48.0}) == pytest.approx(2)
    assert growth.exponent({1: 3.0, 8: 3.0}) == pytest.approx(0)


def test_growth_can_be_measured_and_plotted(tmp_path):
    bench = growth.Bench()
    with bench.host.frozen():
        measured = {
            kind: growth.in_turn({value: getattr(bench, kind)(value) for value in values[:1]}, 1)
            for kind, (_, values) in growth.KINDS.items()
            if kind in ("layers", "rounds", "lidbs", "identities")
        }
    assert all(seconds > 0 for of in measured.values() for seconds in of.values())
    growth.plot(tmp_path / "growth.png", {kind: {1: 1.0, 2: 2.0} for kind in measured})
    assert (tmp_path / "growth.png").stat().st_size > 5000


def test_the_whole_personalization_is_broken_down(tiny):
    host = tiny.host()
    parts = full_size.Parts(host.device, "wall")
    times = full_size.personalized(host, FinetuneOptions(steps=2, batch=1), parts)
    assert list(parts.seconds) == ["face", "encode", "predict", "finetune, 2 iterations", "save"]
    assert len(times) == 2 and sum(times) <= parts.seconds["finetune, 2 iterations"]


def test_the_shapes_without_weights_are_sd15s():
    assert sd15_architecture() == sd15_layers()


def test_the_papers_ablations_take_part():
    assert {"no hypernetwork", "only hypernetwork", "k = 1", "no rank relaxation"} < set(ROWS)


def test_what_a_build_costs_counts_all_that_a_step_is_trained_on(tiny):
    host, embedder = tiny.host(), FaceEmbedder()
    network = HypernetworkConfig(Architecture.of(host.linears()), **embedder.settings)
    decoder = WeightDecoder(network, build_cost.CHANNELS)
    config = build_cost.a_loss(4, host.device)
    features = torch.randn(4, build_cost.TOKENS, build_cost.CHANNELS)
    with host.frozen():
        batch = build_cost.with_prior_samples(host, build_cost.a_batch(features, 16, 4))
        losses = training_losses(host, decoder, batch, torch.Generator(), config)
    assert {"diffusion", "prior", "identity", "sampled_identity"} <= losses.keys()
