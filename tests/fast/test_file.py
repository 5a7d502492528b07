"""The LiDB file: small, the same bytes for the same content, whole or absent, and nothing else is accepted."""

import errno
import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from hyperdreambooth_ext import files
from hyperdreambooth_ext.errors import FileError
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.basis import Basis
from hyperdreambooth_ext.lidb.file import Info
from hyperdreambooth_ext.lidb.safetensors_bytes import to_bytes
from hyperdreambooth_ext.lidb.weights import LiDB, zeros
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from tests.conftest import SMALL, random_lidb, relative_error

INFO = Info(
    name="anna", trigger="sks", checkpoint="small", checkpoint_hash="0123456789", start="hypernetwork", steps=40
)


@pytest.fixture
def saved(tmp_path, small_lidb):
    file.save(tmp_path / "anna.safetensors", small_lidb, INFO)
    return tmp_path / "anna.safetensors"


def test_what_is_read_is_what_was_saved(saved, small_lidb):
    lidb, info = file.load(saved)
    assert info == INFO
    assert lidb.architecture == small_lidb.architecture and lidb.rank == small_lidb.rank
    assert relative_error(small_lidb, lidb) < 0.01


def test_saving_what_was_read_gives_the_same_bytes(saved, tmp_path):
    file.save(tmp_path / "again.safetensors", *file.load(saved))
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_sd15_at_the_default_rank_with_a_thumbnail_takes_at_most_120_kilobytes(sd15, tmp_path):
    lidb = random_lidb(sd15, rank=FinetuneOptions().rank)
    path = tmp_path / "sd15.safetensors"
    file.save(path, lidb, Info(**{**INFO.__dict__, "thumbnail": b"\xff" * 6000}))
    print(f"{path.stat().st_size} bytes, ΔW rounded by {relative_error(lidb, file.load(path)[0]):.1e}")
    assert path.stat().st_size <= 120_000
    assert relative_error(lidb, file.load(path)[0]) < 0.02


def test_what_a_file_says_about_itself_is_read_without_its_numbers(saved):
    assert file.read_info(saved) == file.load(saved)[1] == INFO
    content = saved.read_bytes()
    for damaged in (content[:-1], content + b"x", content[:100], b""):
        saved.write_bytes(damaged)
        with pytest.raises(FileError):
            file.read_info(saved)


def test_any_safetensors_reader_can_open_it(saved):
    with safe_open(saved, "pt") as tensors:
        assert sorted(tensors.keys()) == [layer.key + ".lidb" for layer in SMALL.layers]
        assert tensors.metadata()["modelspec.trigger_phrase"] == "sks"
        assert len(tensors.metadata()["sshs_model_hash"]) == 64


def test_the_thumbnail_is_carried(tmp_path, small_lidb):
    file.save(tmp_path / "a.safetensors", small_lidb, Info(thumbnail=b"jpeg bytes"))
    assert file.load(tmp_path / "a.safetensors")[1].thumbnail == b"jpeg bytes"


@settings(max_examples=25, deadline=None)
@given(rank=st.integers(1, 8), scale=st.floats(1e-3, 30), seed=st.integers(0, 1000))
def test_packing_is_exact_to_about_one_percent_at_any_rank_and_size(tmp_path_factory, rank, scale, seed):
    lidb = random_lidb(SMALL, rank, seed).map(lambda tensor: tensor * scale)
    path = tmp_path_factory.mktemp("pack") / "x.safetensors"
    file.save(path, lidb, Info())
    assert relative_error(lidb, file.load(path)[0]) < 0.02


def test_nothing_is_left_behind_when_the_disk_is_full(tmp_path, small_lidb, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(FileError, match="The disk is full: free some space"):
        file.save(tmp_path / "anna.safetensors", small_lidb, INFO)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_the_old_file(saved, small_lidb, monkeypatch):
    before = saved.read_bytes()

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "replace", broken)
    with pytest.raises(FileError, match="cannot be written"):
        file.save(saved, random_lidb(SMALL, 1, 7), INFO)
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_with_a_sentence_or_still_valid(saved, data):
    content = bytearray(saved.read_bytes())
    damage = data.draw(st.sampled_from(("cut", "flip", "header")))
    if damage == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif damage == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        content[:8] = struct.pack("<Q", data.draw(st.integers(0, 2**64 - 1)))
    path = saved.with_name("damaged.safetensors")
    path.write_bytes(content)
    try:
        lidb, _ = file.load(path)
    except FileError as error:
        assert str(error).endswith(".")
    else:
        assert all(torch.isfinite(tensor).all() for tensor in lidb.parameters)


def _rewritten(saved, change):
    """The saved file with its LiDB header changed by `change`."""
    with safe_open(saved, "pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    header = json.loads(metadata["lidb"])
    change(header, tensors)
    path = saved.with_name("changed.safetensors")
    path.write_bytes(to_bytes(tensors, {**metadata, "lidb": json.dumps(header)}))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda header, _: header.update(format=99),
        lambda header, _: header["basis"].update(algorithm="torch.manual_seed"),
        lambda header, _: header["basis"].update(a=10**9),
        lambda header, _: header.update(shapes=header["shapes"][:-1]),
        lambda header, _: header["shapes"].__setitem__(0, "64x128"),
        lambda header, _: header["shapes"].__setitem__(0, "-1x64"),
        lambda header, _: header.update(rank=3),
        lambda header, _: header.update(name=["a", "list"]),
        lambda header, _: header.pop("architecture"),
        lambda header, tensors: tensors.update({"other.lidb": next(iter(tensors.values()))}),
        lambda header, tensors: tensors.update({key: value.float() for key, value in tensors.items()}),
    ],
)
def test_nonsense_in_a_whole_file_is_refused(saved, change):
    with pytest.raises(FileError):
        file.load(_rewritten(saved, change))


def test_infinite_scales_are_refused(saved):
    def change(_, tensors):
        for value in tensors.values():
            value[:, -4:] = torch.tensor([float("inf")] * 2, dtype=torch.float16).view(torch.int8)

    with pytest.raises(FileError, match="a scale is no positive number"):
        file.load(_rewritten(saved, change))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "lora.safetensors").write_bytes(to_bytes({"x": torch.zeros(1)}, {}))
    with pytest.raises(FileError, match="is no LiDB file"):
        file.load(tmp_path / "lora.safetensors")
    with pytest.raises(FileError, match="There is no file"):
        file.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b'{"x":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}',
        b'{"__metadata__":{"lidb":1}}',
        b'{"__metadata__":[]}',
        b"[" * 100_000,
        b"[]",
        b"\xff\xfe",
    ],
)
def test_strange_headers_are_refused(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(FileError, match=r"[.]$"):
        file.load(path)


@pytest.mark.parametrize("length", [1e-6, 1e-3, 0.3, 0.5, 0.70710678, 1.0, 30.0])
def test_whatever_the_lengths_of_its_sides_a_file_read_and_saved_again_is_the_same(tmp_path, small_lidb, length):
    lopsided = LiDB(
        small_lidb.architecture, small_lidb.basis,
        {key: a * length for key, a in small_lidb.a_train.items()}, small_lidb.b_train,
    )  # fmt: skip
    file.save(tmp_path / "a.safetensors", lopsided, INFO)
    read, info = file.load(tmp_path / "a.safetensors")
    assert relative_error(lopsided, read) < 0.01
    file.save(tmp_path / "b.safetensors", read, info)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_direction_that_changes_nothing_is_read_and_saved_again_too(tmp_path):
    nothing = zeros(SMALL, Basis(), 2, torch.Generator().manual_seed(0))
    file.save(tmp_path / "a.safetensors", nothing, INFO)
    file.save(tmp_path / "b.safetensors", *file.load(tmp_path / "a.safetensors"))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
