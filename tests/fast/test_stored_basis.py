"""Bases that were made: the hypernetwork's file holds them, a LiDB names its own by hash and takes no other."""

import json
from dataclasses import replace

import pytest
import torch

from hyperdreambooth_ext.errors import FileError
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.file import load_hypernetwork, read_config, save_hypernetwork
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.file import Info, relative_error
from hyperdreambooth_ext.lidb.lora import lora_tensors
from hyperdreambooth_ext.lidb.safetensors_bytes import from_file, to_bytes
from hyperdreambooth_ext.lidb.stored_basis import StoredBasis
from tests.conftest import SMALL, random_lidb


def made_basis(seed: int = 0) -> StoredBasis:
    generator = torch.Generator().manual_seed(seed)
    a_aux = {x.key: torch.randn(x.out_features, 8, generator=generator) for x in SMALL.layers}
    b_aux = {x.key: torch.randn(4, x.in_features, generator=generator) for x in SMALL.layers}
    return StoredBasis.of("gradient", a_aux, b_aux)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with one hypernetwork, which speaks in that basis."""
    folder = tmp_path_factory.mktemp("models")
    config = HypernetworkConfig(SMALL, made_basis(), encoder="mobilenetv3_small_050", image_size=64, width=16)
    save_hypernetwork(folder / "small-hypernetwork.safetensors", Hypernetwork(config))
    return folder


def test_a_lidb_finds_its_basis_among_the_hypernetworks(shelf, tmp_path):
    lidb, path = random_lidb(SMALL, rank=2, basis=made_basis()), tmp_path / "anna.safetensors"
    file.save(path, lidb, Info(name="anna"))
    assert path.stat().st_size < 8_000
    again, _ = file.load(path, [shelf])
    assert relative_error(lidb, again) < 0.02
    for layer in SMALL.layers:
        expected = lidb.delta(layer)
        assert torch.allclose(again.delta(layer), expected, atol=0.05 * expected.abs().max())


def test_without_the_hypernetwork_it_says_what_is_missing_and_can_still_be_looked_at(tmp_path):
    path = tmp_path / "anna.safetensors"
    file.save(path, random_lidb(SMALL, basis=made_basis()), Info(name="anna"))
    with pytest.raises(FileError, match="gradient basis .* that is not here"):
        file.load(path, [tmp_path])
    lidb, info = file.load(path, None)
    assert info.name == "anna" and lidb.basis.sha256 == made_basis().sha256


def test_a_hypernetwork_with_another_basis_of_the_same_shape_is_not_taken(shelf, tmp_path):
    path = tmp_path / "anna.safetensors"
    file.save(path, random_lidb(SMALL, basis=made_basis(seed=1)), Info(name="anna"))
    with pytest.raises(FileError, match="that is not here"):
        file.load(path, [shelf])


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "0" * 63}, {"sha256": "../../etc/passwd"}, {"sha256": 7}, {"a": 0}, {"a": True}, {"b": 10**9},
        {"kind": "Gradient<b>"}, {"kind": None}, {"a": "8"},
    ],
)  # fmt: skip
def test_nonsense_in_the_name_is_refused(tmp_path, change):
    path = tmp_path / "anna.safetensors"
    file.save(path, random_lidb(SMALL, basis=made_basis()), Info(name="anna"))
    tensors, metadata = from_file(path, 1_000_000)
    header = json.loads(metadata["lidb"])
    header["basis"] |= change
    path.write_bytes(to_bytes(tensors, metadata | {"lidb": json.dumps(header)}))
    with pytest.raises(FileError, match=r"damaged LiDB"):
        file.load(path, None)


def test_the_exported_lora_needs_no_basis():
    lidb = random_lidb(SMALL, rank=2, basis=made_basis())
    tensors = lora_tensors(lidb, torch.float32)
    for layer in SMALL.layers:
        delta = tensors[f"{layer.key}.lora_up.weight"] @ tensors[f"{layer.key}.lora_down.weight"]
        assert torch.allclose(delta, lidb.delta(layer), atol=1e-5)


def test_a_hypernetwork_brings_its_basis_back_and_its_header_alone_names_it(shelf):
    path = shelf / "small-hypernetwork.safetensors"
    again, layer = load_hypernetwork(path), SMALL.layers[1]
    assert torch.equal(again.decoder.basis.a_of(layer), made_basis().a_of(layer))
    assert read_config(path).basis.sha256 == made_basis().sha256


@pytest.mark.parametrize("damage", ["missing", "shape", "nan", "bit"])
def test_a_damaged_basis_in_a_hypernetwork_is_refused(shelf, tmp_path, damage):
    tensors, metadata = from_file(shelf / "small-hypernetwork.safetensors", 100_000_000)
    key = f"basis_a.{SMALL.layers[0].key}"
    if damage == "missing":
        del tensors[key]
    elif damage == "shape":
        tensors[key] = tensors[key][:-1]
    else:
        tensors[key][0, 0] = float("nan") if damage == "nan" else tensors[key][0, 0] + 1
    path = tmp_path / "hypernetwork.safetensors"
    path.write_bytes(to_bytes(tensors, metadata))
    with pytest.raises(FileError, match=r"\.$"):
        load_hypernetwork(path)


def test_a_learned_basis_moves_with_the_decoder():
    config = HypernetworkConfig(SMALL, encoder="mobilenetv3_small_050", image_size=64, width=16)
    decoder = Hypernetwork(config).decoder
    with torch.no_grad():
        decoder.head_weight.normal_()
    decoder.learn_basis()
    names = [name for name, _ in decoder.named_parameters() if name.startswith("basis_")]
    assert len(names) == 2 * len(SMALL.layers)
    features = torch.randn(2, 4, decoder.features_in.in_features)
    lidb = decoder.as_lidb(decoder(features))
    sum(lidb.delta(layer).square().sum() for layer in SMALL.layers).backward()
    assert all(dict(decoder.named_parameters())[name].grad.abs().sum() > 0 for name in names)
    assert replace(config).basis.to_dict()["algorithm"] == "hadamard-sha256-v1"
