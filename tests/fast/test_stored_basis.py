"""Bases that were made, in files of version 0.1: a LiDB names its own by hash and takes no other."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hyperdreambooth_ext.errors import FileError
from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
from hyperdreambooth_ext.hypernet.file import load_hypernetwork, read_config
from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork
from hyperdreambooth_ext.jobs.library import entries, export, rename
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.basis import Basis, check_sizes
from hyperdreambooth_ext.lidb.file import Info
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.lora import lora_tensors
from hyperdreambooth_ext.lidb.safetensors_bytes import from_file, to_bytes
from hyperdreambooth_ext.lidb.stored_basis import StoredBasis
from hyperdreambooth_ext.lidb.weights import StackedLiDB
from tests.conftest import SMALL, delta_of, random_lidb, relative_error
from tests.stored import save_with_basis, stored_basis


def made_basis(seed: int = 0) -> StoredBasis:
    generator = torch.Generator().manual_seed(seed)
    a_aux = {x.key: torch.randn(x.out_features, 8, generator=generator) for x in SMALL.layers}
    b_aux = {x.key: torch.randn(4, x.in_features, generator=generator) for x in SMALL.layers}
    return stored_basis("gradient", a_aux, b_aux)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with one hypernetwork, which speaks in that basis."""
    folder = tmp_path_factory.mktemp("models")
    config = HypernetworkConfig(SMALL, made_basis(), encoder="mobilenetv3_small_050", image_size=64, width=16)
    save_with_basis(folder / "small-hypernetwork.safetensors", Hypernetwork(config))
    return folder


def test_a_lidb_finds_its_basis_among_the_hypernetworks(shelf, tmp_path):
    lidb, path = random_lidb(SMALL, rank=2, basis=made_basis()), tmp_path / "anna.safetensors"
    file.save(path, lidb, Info(name="anna"))
    assert path.stat().st_size < 8_000
    again, _ = file.load(path, [shelf])
    assert relative_error(lidb, again) < 0.02
    for layer in SMALL.layers:
        expected = delta_of(lidb, layer)
        assert torch.allclose(delta_of(again, layer), expected, atol=0.05 * expected.abs().max())


def test_it_is_exported_and_renamed_where_the_users_own_hypernetworks_are(shelf, tmp_path):
    file.save(tmp_path / "anna.safetensors", random_lidb(SMALL, basis=made_basis()), Info(name="anna"))
    with pytest.raises(FileError, match="not here"):
        export(tmp_path, "anna")
    assert export(tmp_path, "anna", hypernetworks=[shelf]).is_file()
    assert file.load(rename(tmp_path, "anna", "bea"), [shelf])[1].name == "bea"


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
        assert torch.allclose(delta, delta_of(lidb, layer), atol=1e-5)


def test_a_hypernetwork_brings_its_basis_back_and_its_header_alone_names_it(shelf):
    path = shelf / "small-hypernetwork.safetensors"
    again, layer = load_hypernetwork(path), SMALL.layers[1]
    assert torch.equal(again.config.basis.a_of(layer), made_basis().a_of(layer))
    assert read_config(path).basis.sha256 == made_basis().sha256


@pytest.mark.parametrize("damage", ["missing", "shape", "nan", "bit", "dtype", "more", "hadamard"])
def test_a_damaged_basis_in_a_hypernetwork_is_refused(shelf, tmp_path, damage):
    tensors, metadata = from_file(shelf / "small-hypernetwork.safetensors", 100_000_000)
    key = f"basis_a.{SMALL.layers[0].key}"
    if damage == "missing":
        del tensors[key]
    elif damage == "shape":
        tensors[key] = tensors[key][:-1]
    elif damage == "dtype":
        tensors[key] = tensors[key].float() * (1 + 1e-5)
    elif damage == "more":
        tensors["basis_a.lora_unet_more"] = tensors[key]
    elif damage == "hadamard":
        config = json.loads(metadata["hypernetwork"]) | {"basis": Basis(8, 4).to_dict()}
        metadata = metadata | {"hypernetwork": json.dumps(config)}
    else:
        tensors[key][0, 0] = float("nan") if damage == "nan" else tensors[key][0, 0] + 1
    path = tmp_path / "hypernetwork.safetensors"
    path.write_bytes(to_bytes(tensors, metadata))
    with pytest.raises(FileError, match=r"\.$"):
        load_hypernetwork(path)


def test_layers_of_one_width_keep_their_own_basis_in_the_fast_step():
    lidb = random_lidb(SMALL, rank=2, basis=made_basis())
    stacked = StackedLiDB.of(lidb, SMALL.layers)
    for tensor in stacked.parameters:
        tensor.requires_grad_()
    factors = stacked.all_factors()
    for layer in SMALL.layers:
        up_t, down = factors[layer.key]
        assert torch.allclose(up_t.mT @ down, delta_of(lidb, layer), atol=1e-5)
    sum((up_t.mT @ down).square().sum() for up_t, down in factors.values()).backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in stacked.parameters)


def linears() -> dict[str, torch.nn.Linear]:
    return {x.key: torch.nn.Linear(x.in_features, x.out_features).requires_grad_(False) for x in SMALL.layers}


@pytest.mark.parametrize("people", [None, 3])
def test_a_model_computes_with_a_stored_basis_as_its_delta_says(people):
    lidb, there = random_lidb(SMALL, rank=2, basis=made_basis()), linears()
    if people:
        lidb = lidb.map(lambda tensor: tensor * torch.arange(1.0, people + 1)[:, None, None])
    for layer in SMALL.layers:
        x = torch.randn(people or 2, 5, layer.in_features)
        expected = there[layer.key](x) + x @ delta_of(lidb, layer).mT
        with injected(there, Applied(lidb)):
            assert torch.allclose(there[layer.key](x), expected, atol=1e-3)


def test_a_lidb_of_a_basis_that_is_elsewhere_is_listed_by_its_header_alone(tmp_path, monkeypatch):
    path = tmp_path / "anna.safetensors"
    file.save(path, random_lidb(SMALL, basis=made_basis()), Info(name="anna"))
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} was read whole"))
    assert file.read_info(path).name == "anna" and file.is_lidb(path)
    assert [entry.name for entry in entries(tmp_path)] == ["anna"]


@pytest.mark.parametrize("rows", [2048, 4096])
def test_a_name_cannot_ask_for_a_large_basis(rows):
    layer = replace(SMALL.layers[0], in_features=65_000, out_features=65_000)
    with pytest.raises(ValueError, match="none that any model needs"):
        check_sizes(StoredBasis("pca", rows, rows, "0" * 64), layer)
    with pytest.raises(ValueError, match="cannot be"):
        check_sizes(StoredBasis("pca", 8, 8, "0" * 64), replace(layer, in_features=0))


def test_a_file_whose_basis_has_other_shapes_is_refused(shelf, tmp_path):
    tensors, metadata = from_file(shelf / "small-hypernetwork.safetensors", 100_000_000)
    tensors[f"basis_a.{SMALL.layers[0].key}"] = torch.zeros(2000, 2000, dtype=torch.float16)
    (tmp_path / "hypernetwork.safetensors").write_bytes(to_bytes(tensors, metadata))
    path = tmp_path / "anna.safetensors"
    file.save(path, random_lidb(SMALL, basis=made_basis()), Info(name="anna"))
    with pytest.raises(FileError, match="other shapes"):
        file.load(path, [])


def test_what_was_read_while_somebody_samples_can_be_trained_with(shelf, tmp_path):
    path = tmp_path / "anna.safetensors"
    file.save(path, random_lidb(SMALL, basis=made_basis()), Info(name="anna"))
    copied = tmp_path / "copied-hypernetwork.safetensors"
    copied.write_bytes((shelf / "small-hypernetwork.safetensors").read_bytes())
    hadamard = random_lidb(SMALL, basis=Basis(6, 5, 77))
    with torch.inference_mode():
        file.load(path, [])
        hadamard.all_factors(SMALL.layers)
    for lidb in (file.load(path, [])[0].trainable(), hadamard.trainable()):
        sum(up.sum() + down.sum() for up, down in lidb.all_factors(SMALL.layers).values()).backward()
