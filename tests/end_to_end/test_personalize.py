"""The way of one photo: every start, interrupts, both hosts, and a model that is given back."""

import copy
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperdreambooth_ext.errors import TrainingError
from hyperdreambooth_ext.hosts.ldm import LdmHost
from hyperdreambooth_ext.images.face import choose_face, find_faces, largest_face
from hyperdreambooth_ext.images.photo import Photo
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.personalize.personalize import Callbacks, Request, personalize
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO
from tests.conftest import delta_of
from tests.hosts.ldm_model import ldm_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hypernetwork(tiny):
    return tiny.hypernetwork()


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


def test_the_photo_is_framed_as_the_hypernetworks_faces_were_else_as_a_head(host, hypernetwork, sample_photo):
    photo, request = Photo(sample_photo), Request("x", predict_only=True)
    of_heads = copy.copy(hypernetwork)
    of_heads.config = replace(hypernetwork.config, framing="head")
    crops = [personalize(photo, request, host, network).crop for network in (hypernetwork, of_heads)]
    alone = personalize(photo, Request("x", options=FinetuneOptions(steps=1)), host, None).crop
    sizes = [choose_face(find_faces(crop)).size for crop in (*crops, alone)]
    assert sizes[1] == sizes[2] < 0.85 * sizes[0]


def test_a_hypernetwork_that_learned_from_sampled_faces_is_shown_what_the_autoencoder_keeps(
    host, hypernetwork, sample_photo
):
    of_sampled = copy.copy(hypernetwork)
    of_sampled.config = replace(hypernetwork.config, through_autoencoder=True)
    crop = largest_face(sample_photo, host.default_size)
    image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        kept = host.decode_latents(host.encode_images(image)).clamp(-1, 1)
    for network, seen in ((hypernetwork, image), (of_sampled, kept)):
        lidb = personalize(Photo(sample_photo), Request("x", predict_only=True), host, network).lidb
        layer = lidb.architecture.layers[5]
        assert torch.allclose(delta_of(lidb, layer), delta_of(network.predict(seen), layer), atol=1e-6)
    assert float((kept - image).abs().mean()) > 0.01


def test_an_interrupt_stops_within_a_step_and_keeps_what_was_learned(host, hypernetwork, sample_photo):
    steps = []
    result = personalize(
        Photo(sample_photo), Request("x"), host, hypernetwork,
        Callbacks(on_step=lambda progress: steps.append(progress.step), should_stop=lambda: len(steps) >= 3),
    )  # fmt: skip
    assert result.steps == result.info.steps == 3 == len(steps)
    layer = next(layer for layer in result.lidb.architecture.layers if layer.key.startswith("lora_unet_"))
    assert not torch.equal(delta_of(result.lidb, layer), delta_of(result.first, layer))


def test_an_interrupt_before_the_first_step_is_an_error(host, hypernetwork, sample_photo):
    with pytest.raises(TrainingError, match="before the first step"):
        personalize(Photo(sample_photo), Request("x"), host, hypernetwork, Callbacks(should_stop=lambda: True))


def test_ldm_hosts_the_main_job_too(sample_photo, hypernetwork, tiny, tmp_path):
    """The same photo on the real `ldm` code: the same start, and nearly the same loss on the way."""
    from hyperdreambooth_ext.hosts.checkpoint import read_checkpoint

    losses: dict[str, list[float]] = {}
    hosts = {"diffusers": tiny.host(), "ldm": LdmHost(ldm_model(read_checkpoint(tiny.checkpoint), tmp_path))}
    for name, host in hosts.items():
        losses[name] = []
        personalize(Photo(sample_photo), Request("x", options=FinetuneOptions(steps=3)), host, hypernetwork,
                    Callbacks(on_step=lambda progress, name=name: losses[name].append(progress.loss)))  # fmt: skip
    assert losses["ldm"] == pytest.approx(losses["diffusers"], rel=1e-3)


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_ctrl_c_on_the_command_line_keeps_what_was_learned(tiny, tmp_path):
    command = [sys.executable, "-m", "hyperdreambooth_ext", "personalize", str(SAMPLE_PHOTO), "--name", "x"]
    process = subprocess.Popen(
        [*command, "--checkpoint", str(tiny.checkpoint), "--steps", "2000", "--out", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    shown = ""
    while "loss" not in shown:  # beside the progress bar, from the first iteration on
        read = process.stderr.read(1)
        assert read, shown
        shown += read
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert 0 < file.load(tmp_path / "x.safetensors")[1].steps < 2000
