"""One photo becomes a file, and pictures made with its tag show that person: on the bundled model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hypernet.file import fitting_hypernetwork
from hyperdreambooth_ext.images.face import largest_face
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.injection import Applied
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.sampling.sampler import Sampling, sample_many
from hyperdreambooth_ext.shipped import CHECKPOINT, MODELS, SAMPLE_PHOTO
from tests.end_to_end.conftest import Learned, learn

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def host():
    return DiffusersHost(CHECKPOINT)


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Learned:
    return learn(tmp_path_factory.mktemp("lidb"))


@pytest.fixture(scope="module")
def hypernetwork(host):
    return fitting_hypernetwork(host, MODELS)


def test_the_file_is_small_and_says_what_it_is(learned, host):
    lidb, info = file.load(learned.file)
    assert learned.file.stat().st_size <= 120_000
    assert (info.name, info.trigger, info.start, info.steps) == ("anna", "sks", "hypernetwork", FinetuneOptions.steps)
    assert info.checkpoint == CHECKPOINT.stem and len(info.checkpoint_hash) == 10 and len(info.hypernetwork) == 10
    assert info.thumbnail[:2] == b"\xff\xd8"
    assert lidb.rank == FinetuneOptions().rank and lidb.architecture == Architecture.of(host.linears())


def test_pictures_move_towards_the_photo_as_the_multiplier_grows(learned, host, hypernetwork, sample_photo):
    lidb, _ = file.load(learned.file)

    def who(pictures: list[np.ndarray]) -> torch.Tensor:
        """What the face encoder, taught by a recognizer, sees in pictures, without what all faces share."""
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            return (hypernetwork.encoder(images) - hypernetwork.decoder.features_mean).mean(1)

    wanted = who([largest_face(sample_photo, host.default_size)])
    likeness = []
    for multiplier in (0.0, 0.4, 0.8):
        applied = [Applied(lidb, multiplier, multiplier)]
        pictures = sample_many(host, ["a sks face"] * 24, range(24), Sampling(steps=12), applied)
        likeness.append(float(torch.cosine_similarity(who(pictures), wanted).mean()))
    print("likeness at 0, 0.4 and 0.8:", likeness)
    assert likeness[0] < likeness[1] < likeness[2]
    assert likeness[2] > likeness[0] + 0.02


def test_the_same_photo_and_seed_give_the_same_bytes(learned, run, tmp_path):
    code, summary, _ = run("personalize", SAMPLE_PHOTO, "--name", "anna", "--out", tmp_path)
    assert code == 0
    assert (tmp_path / "anna.safetensors").read_bytes() == learned.file.read_bytes()
    assert summary["steps"] == FinetuneOptions.steps and summary["tag"] == "<lidb:anna:1>"


def test_generate_export_and_inspect(learned, host, run, tmp_path):
    picture = tmp_path / "anna.png"
    prompt = "a sks face, pencil sketch <lidb:anna:0.8>"
    assert run("generate", prompt, "--lidb-dir", learned.folder, "--out", picture, "--steps", 4)[0] == 0
    assert Image.open(picture).size == (host.default_size, host.default_size)
    code, summary, _ = run("inspect", learned.file)
    assert code == 0 and summary["kind"] == "LiDB" and summary["name"] == "anna"
    code, summary, _ = run("export", learned.file, "--lora", tmp_path / "lora.safetensors")
    assert code == 0 and summary["bytes"] > learned.file.stat().st_size
    code, summary, _ = run("inspect", next(CHECKPOINT.parent.glob("*hypernetwork*.safetensors")))
    assert code == 0 and summary["kind"] == "hypernetwork"
