"""One real WebUI for all tests here. WEBUI_ROOT names its folder, WEBUI_PYTHON (optional) its Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hyperdreambooth_ext.shipped import CHECKPOINT
from tests.browser.conftest import browser  # noqa: F401  (a fixture: one browser for all tests here)

from .server import REPOSITORY, Server, add_checkpoint, prepare, python_of

ROOT = os.environ.get("WEBUI_ROOT")


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(str(ROOT))


def freeze(root: Path) -> str:
    command = [python_of(root), "-m", "pip", "freeze"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def packages_before(root) -> str:
    """`pip freeze` before the extension was ever started."""
    return freeze(root)


@pytest.fixture(scope="session")
def webui(root, packages_before, tmp_path_factory):
    data = tmp_path_factory.mktemp("webui")
    prepare(data)
    add_checkpoint(data, other_checkpoint(data / "other.safetensors"), "other")
    with Server(root, data) as server:
        yield server
    shutil.rmtree(data / "models", ignore_errors=True)


def other_checkpoint(path: Path) -> Path:
    """A checkpoint of the same architecture that draws otherwise."""
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(0)
    save_file(
        {
            key: value + 0.02 * value.float().std() * torch.randn(value.shape, generator=generator).to(value.dtype)
            if value.ndim > 1 and "diffusion_model" in key else value
            for key, value in load_file(CHECKPOINT).items()
        },
        path,
    )  # fmt: skip
    shutil.copy(CHECKPOINT.with_suffix(".yaml"), path.with_suffix(".yaml"))
    return path


@pytest.fixture(scope="session")
def photo() -> bytes:
    return (REPOSITORY / "models" / "sample_photo.jpg").read_bytes()


@pytest.fixture(scope="session")
def blank(webui):
    """The picture of the test prompt before anything was personalized."""
    return webui.picture("a sks face")


@pytest.fixture(scope="session")
def anna(webui, photo, blank) -> dict:
    """The result of a personalization through the real WebUI's API, with the default settings."""
    return webui.personalize(photo, "anna", quality="fast")


@pytest.fixture(scope="session")
def anna_lora(webui, anna) -> str:
    return webui.export("anna")
