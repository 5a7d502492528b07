"""SD 2 and SDXL in a real WebUI, and --medvram: personalized on, generated with, given back."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from hyperdreambooth_ext.shipped import CHECKPOINT
from tests.bundled import NAME, SIZE

from .column import column
from .server import REPOSITORY, Server, add_checkpoint, prepare, python_of
from .visit import visited

MODELS = ("sd2", "sd2v", "sdxl")


@pytest.fixture(scope="module")
def medvram(root, tmp_path_factory):
    """A WebUI started with --medvram and all the small checkpoints."""
    data, made = tmp_path_factory.mktemp("medvram"), tmp_path_factory.mktemp("small")
    prepare(data)
    script, models = Path(__file__).with_name("small_checkpoints.py"), REPOSITORY / "models"
    command = [python_of(root), script, root, CHECKPOINT, models / "clip", made]
    subprocess.run([str(part) for part in command], check=True, cwd=root, capture_output=True)
    for name in MODELS:
        add_checkpoint(data, made / f"{name}.safetensors")
    with Server(root, data, "--medvram") as server:
        # The default preview needs a model of its own for SDXL, which the WebUI would download.
        server.call("/sdapi/v1/options", {"show_progress_type": "Approx cheap"})
        yield server


@pytest.fixture(params=(NAME, *MODELS))
def model(request, medvram) -> str:
    medvram.call("/sdapi/v1/options", {"sd_model_checkpoint": request.param})
    return request.param


def test_each_family_is_personalized_and_generated_with(medvram, model, photo):
    size = {NAME: SIZE, "sdxl": 1024}.get(model, 128)
    options = {"quality": "fast", "steps": 3, "size": 128, "start": "gradient", "lr": 0.3}
    blank = medvram.picture("a sks face")
    before = medvram.call("/probe/inside")
    result = medvram.personalize(photo, f"in-{model}", **options)
    assert medvram.call("/probe/inside") == before
    print(f"{model} (made for {size} px): {result['seconds']} s, {result['bytes']} bytes")
    with_tag = medvram.picture(f"a sks face <lidb:in-{model}:1>")
    assert not np.array_equal(blank, with_tag)
    assert np.array_equal(with_tag, medvram.picture(f"a sks face <lora:{medvram.export(f'in-{model}')}:1>"))
    assert np.array_equal(blank, medvram.picture("a sks face"))
    assert medvram.call("/probe/comments") == []


def test_a_file_for_another_family_is_left_out_and_that_is_said(medvram, model, photo):
    names = [entry["name"] for entry in medvram.call("/hyperdreambooth/v1/lidbs")]
    blank = medvram.picture("a sks face")
    for name in names:
        # The two SD 2 models have one architecture.
        if name[:6] == f"in-{model}"[:6]:
            continue
        picture = medvram.picture(f"a sks face <lidb:{name}:1>")
        said = [comment for comment in medvram.call("/probe/comments") if "another architecture" in comment]
        assert len(said) == 1 and f'"{name}"' in said[0], (model, name)
        assert np.array_equal(picture, blank), (model, name)


def test_each_files_card_belongs_to_its_own_kind_of_model(medvram, model):
    loras = {lora["name"]: lora["metadata"] for lora in medvram.call("/sdapi/v1/loras")}
    for name, metadata in loras.items():
        family = name.removeprefix("in-").removesuffix("_lora")
        assert (metadata["ss_v2"] == "True") == family.startswith("sd2")
        assert ("ss_base_model_version" in metadata) == (family == "sdxl")


@pytest.fixture
def sdxl(medvram) -> Server:
    medvram.call("/sdapi/v1/options", {"sd_model_checkpoint": "sdxl"})
    return medvram


def test_sdxl_has_every_cell_that_the_forks_have(sdxl):
    found = dict(column(sdxl))
    del found["personalize, seconds"], found["LiDB, bytes"]
    assert found.pop("tag and exported LoRA differ by") == 0
    assert found.pop("error")[0] == "failed" and found.pop("interrupt") == "cancelled"
    assert all(value is True for value in found.values()), found


def test_sdxl_in_the_page_from_photo_to_picture_and_a_build(sdxl, browser):
    found = dict(visited(sdxl, browser))
    assert "<lidb:page:1>" in found["from photo to picture in the page"]
    assert "is used from the next" in found["build"]
    assert "made for this checkpoint" in found["start with the hypernetwork that was built"]
