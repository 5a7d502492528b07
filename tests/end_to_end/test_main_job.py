"""One photo becomes a file, and pictures made with its tag show that person: on the bundled model."""

import copy
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hyperdreambooth_ext.cli.generate import Sampling, sample
from hyperdreambooth_ext.errors import TrainingError
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.hosts.ldm import LdmHost
from hyperdreambooth_ext.hypernet.file import fitting_hypernetwork
from hyperdreambooth_ext.images.face import crop_face, find_face
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.injection import Applied
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.personalize.personalize import Callbacks, Request, personalize
from hyperdreambooth_ext.shipped import CHECKPOINT, MODELS, SAMPLE_PHOTO
from tests.end_to_end.conftest import Learned, learn
from tests.hosts.ldm_model import ldm_model

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

    wanted = who([crop_face(sample_photo, find_face(sample_photo), host.default_size)])
    likeness = []
    for multiplier in (0.0, 0.4, 0.8):
        pictures = sample(
            host, ["a sks face"] * 6, [Applied(lidb, multiplier, multiplier)], range(6), Sampling(steps=12)
        )
        likeness.append(float(torch.cosine_similarity(who(pictures), wanted).mean()))
    print("likeness at 0, 0.4 and 0.8:", likeness)
    assert likeness[0] < likeness[1] < likeness[2]
    assert likeness[2] > likeness[0] + 0.02


def test_the_same_photo_and_seed_give_the_same_bytes(learned, run, tmp_path):
    code, summary, _ = run("personalize", SAMPLE_PHOTO, "--name", "anna", "--out", tmp_path)
    assert code == 0
    assert (tmp_path / "anna.safetensors").read_bytes() == learned.file.read_bytes()
    assert summary["steps"] == FinetuneOptions.steps and summary["tag"] == "<lidb:anna:1>"


def test_the_model_is_the_same_after_personalizing(host, hypernetwork, sample_photo):
    before = {name: tensor.clone() for name, tensor in host.unet.state_dict().items()}
    wanted = [parameter.requires_grad for parameter in host.unet.parameters()]
    personalize(Photo(sample_photo), Request("x", options=FinetuneOptions(steps=2)), host, hypernetwork)
    assert all(torch.equal(before[name], tensor) for name, tensor in host.unet.state_dict().items())
    assert wanted == [parameter.requires_grad for parameter in host.unet.parameters()]
    assert not any("forward" in vars(module) for module in host.linears().values())


@pytest.mark.parametrize("start", ["hypernetwork", "gradient", "zero"])
def test_every_start_lowers_the_loss(host, hypernetwork, sample_photo, start):
    losses = []
    options = FinetuneOptions(steps=24, batch=8)
    result = personalize(Photo(sample_photo), Request("x", start, options), host, hypernetwork,
                         Callbacks(on_step=lambda progress: losses.append(progress.loss)))  # fmt: skip
    assert result.start == start and len(losses) == 24
    assert np.mean(losses[-6:]) < np.mean(losses[:6])


def test_without_a_hypernetwork_the_gradient_start_is_taken(host, sample_photo):
    result = personalize(Photo(sample_photo), Request("x", options=FinetuneOptions(steps=1)), host, None)
    assert result.start == "gradient" and result.info.hypernetwork == ""


def test_a_hypernetwork_that_learned_from_drawn_faces_is_shown_what_the_autoencoder_keeps(
    host, hypernetwork, sample_photo
):
    drawn = copy.copy(hypernetwork)
    drawn.config = replace(hypernetwork.config, through_autoencoder=True)
    crop = crop_face(sample_photo, find_face(sample_photo), host.default_size)
    image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        kept = host.decode_latents(host.encode_images(image)).clamp(-1, 1)
    for network, seen in ((hypernetwork, image), (drawn, kept)):
        lidb = personalize(Photo(sample_photo), Request("x", predict_only=True), host, network).lidb
        layer = lidb.architecture.layers[5]
        assert torch.allclose(lidb.delta(layer), network.predict(seen).delta(layer), atol=1e-6)
    assert float((kept - image).abs().mean()) > 0.01


def test_an_interrupt_stops_within_a_step_and_keeps_what_was_learned(host, hypernetwork, sample_photo):
    steps = []
    result = personalize(
        Photo(sample_photo), Request("x"), host, hypernetwork,
        Callbacks(on_step=lambda progress: steps.append(progress.step), should_stop=lambda: len(steps) >= 3),
    )  # fmt: skip
    assert result.steps == result.info.steps == 3 == len(steps)
    layer = next(layer for layer in result.lidb.architecture.layers if layer.key.startswith("lora_unet_"))
    assert not torch.equal(result.lidb.delta(layer), result.first.delta(layer))


def test_an_interrupt_before_the_first_step_is_an_error(host, hypernetwork, sample_photo):
    with pytest.raises(TrainingError, match="before the first step"):
        personalize(Photo(sample_photo), Request("x"), host, hypernetwork, Callbacks(should_stop=lambda: True))


def test_ldm_hosts_the_main_job_too(learned, sample_photo, hypernetwork, tmp_path):
    """The same photo on the real `ldm` code: the same start, and nearly the same loss on the way."""
    from hyperdreambooth_ext.hosts.checkpoint import read_checkpoint

    losses: dict[str, list[float]] = {}
    hosts = {"diffusers": DiffusersHost(CHECKPOINT), "ldm": LdmHost(ldm_model(read_checkpoint(CHECKPOINT), tmp_path))}
    for name, host in hosts.items():
        losses[name] = []
        personalize(Photo(sample_photo), Request("x", options=FinetuneOptions(steps=3)), host, hypernetwork,
                    Callbacks(on_step=lambda progress, name=name: losses[name].append(progress.loss)))  # fmt: skip
    assert losses["ldm"] == pytest.approx(losses["diffusers"], rel=1e-3)


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


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_ctrl_c_on_the_command_line_keeps_what_was_learned(tmp_path):
    command = [sys.executable, "-m", "hyperdreambooth_ext", "personalize", str(SAMPLE_PHOTO), "--name", "x"]
    process = subprocess.Popen(
        [*command, "--steps", "100000", "--out", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in iter(lambda: process.stderr.read(1), ""):
        if line == "·":  # the progress bar has begun to count
            break
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert 0 < file.load(tmp_path / "x.safetensors")[1].steps < 100_000
