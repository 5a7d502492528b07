"""Whatever goes wrong in a build is one sentence, and nothing is lost of what was already made."""

import errno
import io
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperdreambooth_ext.errors import FileError, UserError
from hyperdreambooth_ext.pretrain import loop as loop_module
from hyperdreambooth_ext.pretrain.build import build
from hyperdreambooth_ext.pretrain.options import BuildOptions
from hyperdreambooth_ext.pretrain.store import FaceStore
from tests import half
from tests.pretrain.conftest import PEOPLE, SMALL


@pytest.fixture
def refused(host, tmp_path):
    """Begin a build that must fail; returns its sentence."""

    def go(**wanted) -> str:
        with pytest.raises(UserError) as caught:
            build(tmp_path / "run", SMALL | {"photos": ""} | wanted, host, tmp_path / "out", until="faces")
        sentence = str(caught.value)
        assert sentence.endswith(".") and "\n" not in sentence
        return sentence

    go.folder = tmp_path / "run"
    return go


def test_an_empty_folder(refused, tmp_path):
    (tmp_path / "photos").mkdir()
    assert "holds no photo" in refused(photos=str(tmp_path / "photos"))


def test_pictures_without_faces(refused, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.full((200, 200, 3), 120, np.uint8)).save(photos / "wall.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    assert "No usable face was found" in refused(photos=str(photos))


def test_too_few_photos_keep_what_was_found(refused, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for file in sorted(PEOPLE.glob("*_0.jpg"))[:3]:
        (photos / file.name).write_bytes(file.read_bytes())
        (photos / f"again-{file.name}").write_bytes(file.read_bytes())
    sentence = refused(photos=str(photos))
    found = int(re.match(r"Only (\d+) usable faces were found", sentence)[1])
    assert 1 <= found <= 3, "the same face twice counts once"
    assert len(FaceStore(refused.folder / "faces")) == found


def shard(path: Path, count: int) -> None:
    with tarfile.open(path, "w") as tar:
        for file in sorted(PEOPLE.glob("*_0.jpg"))[:count]:
            content = file.read_bytes()
            member = tarfile.TarInfo(file.name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_a_shard_cut_short(refused, tmp_path):
    shard(tmp_path / "a.tar", 6)
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: len(content) * 2 // 3])
    assert "is cut short or damaged" in refused(shards=str(tmp_path / "a*.tar"))
    assert len(FaceStore(refused.folder / "faces")) >= 2


def test_shards_on_this_machine_and_streamed_ones_give_the_same_faces(host, tmp_path):
    pytest.importorskip("webdataset")
    shard(tmp_path / "a-0.tar", 10)
    wanted = SMALL | {"photos": "", "faces": 8, "held_out": 4}
    for name, pattern in (("here", "a-*.tar"), ("streamed", "a-{0..0}.tar")):
        build(tmp_path / name, wanted | {"shards": str(tmp_path / pattern)}, host, tmp_path, until="faces")
    here, streamed = (FaceStore(tmp_path / name / "faces") for name in ("here", "streamed"))
    assert np.array_equal(here.identities, streamed.identities) and len(here) == 8


def test_a_face_shard_of_the_build_that_was_damaged(host, prepared_folder, tmp_path):
    file = tmp_path / "faces-0000-000000.tar"
    file.write_bytes(next((prepared_folder / "faces").glob("*.tar")).read_bytes()[:5000])
    with pytest.raises(FileError, match="delete it and start again"):
        FaceStore(tmp_path)


def test_a_checkpoint_that_makes_no_faces(refused, monkeypatch):
    monkeypatch.setattr("hyperdreambooth_ext.pretrain.faces.GIVE_UP_AFTER", 4)
    assert "usable faces: check that it makes portraits" in refused(sample_steps=1, sample_batch=4, cfg=1.0)


def full_disk(*_arguments, **_keywords):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_keeps_the_last_state(run, finished, tmp_path, monkeypatch):
    state = tmp_path / "run" / "training" / "state.pt"
    before = state.read_bytes()
    monkeypatch.setattr(loop_module.os, "replace", full_disk)
    with pytest.raises(FileError, match="free some space"):
        run({"steps": 6})
    assert state.read_bytes() == before and not state.with_suffix(".tmp").exists()
    monkeypatch.undo()
    assert run({"steps": 6}).exists()


def test_a_full_disk_while_faces_are_found(refused, monkeypatch):
    monkeypatch.setattr("hyperdreambooth_ext.files.os.fsync", full_disk)
    assert "disk is full" in refused(photos=str(PEOPLE))


def test_another_checkpoint_or_other_options_do_not_mix(host, run, tmp_path, monkeypatch):
    run(until="faces")
    with pytest.raises(UserError, match="was begun with width 32"):
        run({"width": 64})
    monkeypatch.setattr(host, "checkpoint_hash", "0123456789")
    with pytest.raises(UserError, match=f"was begun with the checkpoint {host.checkpoint_name}"):
        run()


@pytest.mark.parametrize(
    "wrong",
    [
        {"faces": 4}, {"batch": 0}, {"lr": float("nan")}, {"precision": "fp8"}, {"keep": "first"}, {"size": 100},
        {"photos": "a", "shards": "b"}, {"beta": 1.0},
    ],
)  # fmt: skip
def test_values_that_cannot_be(wrong):
    with pytest.raises(UserError, match=r"\.$"):
        BuildOptions(**wrong).checked()


def test_fp16_needs_a_graphics_card(run):
    with pytest.raises(UserError, match="use bf16"):
        run({"precision": "fp16"})


@pytest.mark.skipif(half.safe_on_the_processor(), reason="this torch is safe in bf16")
def test_bf16_on_a_processor_needs_a_torch_that_does_not_damage_memory(run):
    with pytest.raises(UserError, match="use fp32"):
        run({"precision": "bf16"})
