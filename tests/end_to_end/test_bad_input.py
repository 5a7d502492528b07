"""Whatever is wrong is said in one sentence, with a non-zero exit, and leaves no file behind."""

import errno

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hyperdreambooth_ext import files
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO
from tests.conftest import SMALL, random_lidb


@pytest.fixture
def run(run, tiny):
    """The commands on the tiny checkpoint and its hypernetwork, unless they name others."""
    files = {"--checkpoint": tiny.checkpoint, "--hypernetwork": tiny.hypernetwork_file}
    takes = {"personalize": tuple(files), "generate": ("--checkpoint",)}

    def command(name: str, *argv: object):
        unnamed = [option for option in takes.get(name, ()) if option not in argv]
        return run(name, *argv, *(word for option in unnamed for word in (option, files[option])))

    return command


@pytest.fixture
def refused(run, tmp_path):
    """Run a command that must fail; returns its sentence, having checked that OUT holds no new file."""
    out = tmp_path / "out"

    def command(*argv: object) -> str:
        before = sorted(out.rglob("*"))
        code, summary, shown = run(*argv)
        assert code == 1 and summary["ok"] is False
        sentence = summary["error"]
        assert f"error: {sentence}" in shown and sentence.endswith(".") and "\n" not in sentence
        assert sorted(out.rglob("*")) == before
        return sentence

    command.out = out
    return command


def personalize(refused, photo, *options):
    return refused("personalize", photo, "--name", "anna", "--out", refused.out, *options)


def test_no_face(refused, tmp_path):
    Image.fromarray(np.full((300, 300, 3), 90, np.uint8)).save(tmp_path / "wall.png")
    assert "No face was found" in personalize(refused, tmp_path / "wall.png")


def test_a_tiny_face(refused, tmp_path):
    photo = Image.open(SAMPLE_PHOTO)
    photo.resize((photo.width // 12, photo.height // 12)).save(tmp_path / "tiny.png")
    assert "at least 40" in personalize(refused, tmp_path / "tiny.png")


def test_a_truncated_photo(refused, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(SAMPLE_PHOTO.read_bytes()[:30_000])
    assert "damaged or cut short" in personalize(refused, tmp_path / "cut.jpg")


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_other_color_modes_are_no_error(run, tmp_path, mode):
    path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    Image.open(SAMPLE_PHOTO).resize((424, 632)).convert(mode).save(path)
    assert run("personalize", path, "--name", "x", "--out", tmp_path, "--predict-only")[0] == 0


@pytest.mark.parametrize("name", ["", "a:b", "a>b", "a/b", "..\\a"])
def test_a_bad_name(refused, name):
    refused("personalize", SAMPLE_PHOTO, "--name", name, "--out", refused.out)


def test_an_existing_name(refused, learned):
    before = learned.file.read_bytes()
    sentence = refused("personalize", SAMPLE_PHOTO, "--name", "anna", "--out", learned.folder)
    assert "(--overwrite)" in sentence and learned.file.read_bytes() == before


def test_a_full_disk(refused, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    refused.out.mkdir()
    assert "The disk is full" in personalize(refused, SAMPLE_PHOTO, "--predict-only")


def test_zero_steps(refused):
    assert "at least 1 (--steps)." in personalize(refused, SAMPLE_PHOTO, "--steps", 0)


def test_a_loss_that_is_no_number(refused, monkeypatch):
    predict = DiffusersHost.predict
    monkeypatch.setattr(DiffusersHost, "predict", lambda self, *args: predict(self, *args) * float("nan"))
    assert "stopped being a number at step 1" in personalize(refused, SAMPLE_PHOTO, "--lr", "0.01")
    assert "full precision" in personalize(refused, SAMPLE_PHOTO)
    assert "full precision" in personalize(refused, SAMPLE_PHOTO, "--start", "gradient")


def test_a_checkpoint_of_another_architecture(refused, tmp_path):
    save_file({"conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": torch.zeros(1)},
              tmp_path / "xl.safetensors")  # fmt: skip
    assert "SDXL" in personalize(refused, SAMPLE_PHOTO, "--checkpoint", tmp_path / "xl.safetensors")


def test_a_checkpoint_whose_shapes_are_not_those_of_its_configuration(refused, tiny, tmp_path):
    (tmp_path / "small.safetensors").write_bytes(tiny.checkpoint.read_bytes())
    assert "configuration" in personalize(refused, SAMPLE_PHOTO, "--checkpoint", tmp_path / "small.safetensors")


def test_a_damaged_or_pickled_checkpoint(refused, tiny, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(tiny.checkpoint.read_bytes()[:100_000])
    assert "is damaged" in personalize(refused, SAMPLE_PHOTO, "--checkpoint", tmp_path / "a.safetensors")
    (tmp_path / "a.ckpt").write_bytes(b"pickle")
    assert "never opened" in personalize(refused, SAMPLE_PHOTO, "--checkpoint", tmp_path / "a.ckpt")


def test_a_lidb_for_other_shapes(refused, tmp_path):
    file.save(tmp_path / "other.safetensors", random_lidb(SMALL), file.Info(name="other"))
    sentence = refused("generate", "a face <lidb:other>", "--lidb-dir", tmp_path, "--out", refused.out / "x.png")
    assert "made for a model of another architecture" in sentence


def test_a_damaged_lidb(refused, learned, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(learned.file.read_bytes()[:-50])
    sentence = refused("generate", "a face <lidb:cut>", "--lidb-dir", tmp_path, "--out", refused.out / "x.png")
    assert "is damaged" in sentence


def test_a_missing_lidb_and_a_bad_multiplier(refused, learned):
    for tag, expected in (("<lidb:nobody>", "There is no LiDB"), ("<lidb:anna:much>", "is no number")):
        assert expected in refused("generate", tag, "--lidb-dir", learned.folder, "--out", refused.out / "x.png")


def test_a_damaged_hypernetwork_and_one_for_another_model(refused, tmp_path):
    from hyperdreambooth_ext.hypernet.config import HypernetworkConfig
    from hyperdreambooth_ext.hypernet.file import save_hypernetwork
    from hyperdreambooth_ext.hypernet.hypernetwork import Hypernetwork

    path = tmp_path / "hypernetwork.safetensors"
    save_hypernetwork(path, Hypernetwork(HypernetworkConfig(SMALL, encoder="mobilenetv3_small_050", image_size=64)))
    assert "trained for another architecture" in personalize(refused, SAMPLE_PHOTO, "--hypernetwork", path)
    path.write_bytes(path.read_bytes()[:-50])
    assert "is damaged" in personalize(refused, SAMPLE_PHOTO, "--hypernetwork", path)


def test_an_unknown_device_and_an_impossible_size(refused):
    assert "choose cpu (--device)" in personalize(refused, SAMPLE_PHOTO, "--device", "cuda:99")
    assert "multiple of 64" in personalize(refused, SAMPLE_PHOTO, "--size", 100)


def test_an_export_does_not_overwrite(refused, learned, tmp_path):
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    assert "exists" in refused("export", learned.file, "--lora", tmp_path / "there.safetensors")
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"


def test_a_changed_checkpoint_weight_keeps_the_architecture(tmp_path, tiny, learned, run):
    """A finetune of the same architecture takes the same LiDB."""
    tensors = load_file(tiny.checkpoint)
    key = next(iter(tensors))
    tensors[key] = tensors[key] * 1.01
    save_file(tensors, tmp_path / "finetune.safetensors")
    (tmp_path / "finetune.yaml").write_bytes(tiny.checkpoint.with_suffix(".yaml").read_bytes())
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_bytes((tiny.folder / "clip" / "config.json").read_bytes())
    code, _, _ = run("generate", "a sks face <lidb:anna:0.8>", "--lidb-dir", learned.folder, "--steps", 2,
                     "--checkpoint", tmp_path / "finetune.safetensors", "--out", tmp_path / "x.png")  # fmt: skip
    assert code == 0
