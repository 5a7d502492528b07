"""The hypernetwork: zero start, iterations, one file that carries all."""

import json
import os
from dataclasses import replace

import pytest
import torch

from hyperdreambooth_ext.errors import ArchitectureError, FileError
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.file import (
    check_fits,
    find_hypernetwork,
    list_hypernetworks,
    load_hypernetwork,
    read_config,
    save_hypernetwork,
)
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.safetensors_bytes import from_file, to_bytes
from tests.conftest import SMALL, delta_of

CONFIG = HypernetworkConfig(SMALL, encoder="mobilenetv3_small_050", image_size=64, width=32, checkpoint="small")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Hypernetwork(CONFIG).eval()


def trained_a_little(network: Hypernetwork) -> Hypernetwork:
    with torch.no_grad():
        network.decoder.head_weight.normal_(0, 0.05)
        network.decoder.weights_in.weight.normal_(0, 0.5)
    return network


def test_before_training_it_predicts_no_change(network):
    lidb = network.predict(torch.rand(1, 3, 64, 64))
    assert lidb.rank == 1
    assert all(not delta_of(lidb, layer).any() for layer in SMALL.layers)


def test_gradients_reach_every_part_from_the_first_steps(network):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        lidb = network(torch.rand(2, 3, 64, 64))
        loss = sum((delta_of(lidb, layer) - 0.1).square().sum() for layer in SMALL.layers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    lacking = [name for name, p in network.decoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not lacking
    assert next(network.encoder.parameters()).grad is not None


def test_the_features_are_computed_once_and_theta_is_refined(network):
    trained_a_little(network)
    calls = []
    network.encoder.register_forward_hook(lambda *_: calls.append(1))
    network.predict(torch.rand(1, 3, 64, 64))
    assert len(calls) == 1
    features = network.encoder(torch.rand(1, 3, 64, 64))
    rounds = {}
    for k in (1, 2, 3):
        network.decoder.config = replace(CONFIG, iterations=k)
        rounds[k] = network.decoder(features)
    assert not torch.allclose(rounds[1], rounds[2]) and not torch.allclose(rounds[2], rounds[3])


def test_every_sample_gets_its_own_person(network):
    images = torch.rand(3, 3, 64, 64)
    together = trained_a_little(network)(images)
    layer = SMALL.layers[1]
    for i in range(3):
        alone = network.predict(images[i : i + 1])
        assert torch.allclose(delta_of(together, layer)[i], delta_of(alone, layer), atol=1e-5)


def test_the_width_is_free_of_a_plus_b():
    for width in (16, 256):
        assert Hypernetwork(replace(CONFIG, width=width)).predict(torch.rand(1, 3, 64, 64)).rank == 1


def test_a_transformer_encoder_works_too():
    network = Hypernetwork(replace(CONFIG, encoder="vit_tiny_patch16_224", image_size=224))
    assert network.encoder(torch.rand(1, 3, 64, 64)).shape == (1, 197, 192)


def test_open_clip_is_the_alternative():
    network = Hypernetwork(replace(CONFIG, encoder="open_clip:ViT-S-32-alt", image_size=224))
    assert network.encoder(torch.rand(1, 3, 64, 64)).ndim == 3


def test_one_file_brings_it_back(network, tmp_path):
    path = tmp_path / "hypernetwork.safetensors"
    save_hypernetwork(path, trained_a_little(network))
    again = load_hypernetwork(path)
    image, layer = torch.rand(1, 3, 64, 64), SMALL.layers[2]
    assert again.config == CONFIG
    expected = delta_of(network.predict(image), layer)
    assert torch.allclose(delta_of(again.predict(image), layer), expected, atol=5e-3 * expected.abs().max())


def test_latent_identity_nets_travel_in_the_file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "hypernetwork.safetensors"
    network = Hypernetwork(replace(CONFIG, identity_width=128, identity_nets=2)).eval()
    save_hypernetwork(path, network)
    again, latents = load_hypernetwork(path), torch.randn(3, 4, 16, 16)
    assert torch.allclose(again.identity_net(latents), network.identity_net(latents), atol=1e-2)
    assert not any(parameter.requires_grad for parameter in again.identity_net.parameters())


def test_a_file_of_version_0_1_loads_under_its_former_names(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "hypernetwork.safetensors"
    network = Hypernetwork(replace(CONFIG, identity_width=128, identity_nets=2, centered=True)).eval()
    network.decoder.identity_weight.normal_()
    network.decoder.identity_center.normal_()
    save_hypernetwork(path, network)
    tensors, metadata = from_file(path, 100_000_000)
    for name, former in (("identity_center", "identity_centre"), ("identity_net.nets.", "readers.readers.")):
        assert any(name in key for key in tensors)
        tensors = {key.replace(name, former): tensor for key, tensor in tensors.items()}
    config = json.loads(metadata["hypernetwork"])
    config |= {"readers": config.pop("identity_nets"), "centred": config.pop("centered")}
    path.write_bytes(to_bytes(tensors, {"hypernetwork": json.dumps(config)}))
    again, latents = load_hypernetwork(path), torch.randn(3, 4, 16, 16)
    features = network.encoder(torch.rand(1, 3, 64, 64))
    assert again.config == network.config
    assert torch.allclose(again.identity_net(latents), network.identity_net(latents), atol=1e-2)
    assert torch.allclose(again.decoder.identity(features), network.decoder.identity(features), atol=0.05)


def test_its_configuration_says_that_a_photo_goes_through_the_autoencoder_first():
    config = replace(CONFIG, through_autoencoder=True)
    assert HypernetworkConfig.from_json(config.to_json()).through_autoencoder
    assert not HypernetworkConfig.from_json(CONFIG.to_json()).through_autoencoder
    with pytest.raises(FileError, match="through_autoencoder"):
        HypernetworkConfig.from_json(replace(config, through_autoencoder=1).to_json())


def test_its_configuration_says_how_its_faces_were_framed():
    heads = replace(CONFIG, framing="head")
    assert HypernetworkConfig.from_json(heads.to_json()).framing == "head"
    of_before = json.loads(heads.to_json())
    del of_before["framing"]
    assert HypernetworkConfig.from_json(json.dumps(of_before)).framing == "face"
    with pytest.raises(FileError, match="framing"):
        HypernetworkConfig.from_json(replace(CONFIG, framing="toes").to_json())


@pytest.mark.parametrize("wrong", [2, 9, -1, "2"])
def test_latent_identity_nets_that_cannot_be_are_refused(wrong):
    config = replace(CONFIG, identity_width=0 if wrong == 2 else 128, identity_nets=wrong)
    with pytest.raises(FileError, match="identity_nets"):
        HypernetworkConfig.from_json(config.to_json())


def test_the_right_file_is_found_by_architecture_and_then_by_checkpoint(network, tmp_path):
    other = Architecture(SMALL.layers[:2])
    for age, (name, config) in enumerate(
        (
            ("a", replace(CONFIG, architecture=other)),
            ("b", CONFIG),
            ("c", replace(CONFIG, checkpoint_hash="h")),
        )
    ):
        file = tmp_path / f"{name}-hypernetwork.safetensors"
        save_hypernetwork(file, Hypernetwork(config))
        os.utime(file, (1e9 - age, 1e9 - age))
    assert find_hypernetwork(tmp_path, SMALL, "h").name.startswith("c")
    assert find_hypernetwork(tmp_path, SMALL, "unknown").name.startswith("b")
    os.utime(tmp_path / "c-hypernetwork.safetensors")
    assert find_hypernetwork(tmp_path, SMALL, "unknown").name.startswith("c"), "of two that fit alike the newest"
    (tmp_path / "d-hypernetwork.safetensors").write_bytes(b"half a download")
    assert find_hypernetwork(tmp_path, SMALL, "h").name.startswith("c")
    assert [found.problem == "" for found in list_hypernetworks(tmp_path)] == [True, True, True, False]
    assert find_hypernetwork(tmp_path, Architecture(SMALL.layers[1:]), "h") is None
    assert find_hypernetwork(tmp_path, SMALL, "h", "b-hypernetwork.safetensors").name.startswith("b"), "asked by name"
    for name, sentence in (("d-hypernetwork.safetensors", "d-hypernetwork"), ("e.safetensors", "not there any more")):
        with pytest.raises(FileError, match=sentence):
            find_hypernetwork(tmp_path, SMALL, "h", name)
    with pytest.raises(ArchitectureError, match="another architecture"):
        check_fits(network, other)


@pytest.mark.parametrize("damage", ["cut", "configuration", "tensor", "nan", "foreign"])
def test_a_damaged_file_is_refused_with_a_sentence(network, tmp_path, damage):
    path = tmp_path / "hypernetwork.safetensors"
    if damage == "nan":
        with torch.no_grad():
            network.decoder.positions[0, 0] = float("nan")
    save_hypernetwork(path, network)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "foreign":
        path.write_bytes(to_bytes({"x": torch.zeros(1)}, {}))
    elif damage == "configuration":
        path.write_bytes(path.read_bytes().replace(b'\\"width\\": 32', b'\\"width\\": -2'))
    elif damage == "tensor":
        path.write_bytes(path.read_bytes().replace(b'"decoder.positions"', b'"decoder.positionz"'))
    with pytest.raises(FileError, match=r"[.]$"):
        load_hypernetwork(path)


def test_the_configuration_survives_the_file(network, tmp_path):
    save_hypernetwork(tmp_path / "h.safetensors", network)
    assert read_config(tmp_path / "h.safetensors") == CONFIG
