"""Folders with a few faces, of photos, prepared once, that the tests of the training begin with."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.pretrain.build import build
from hyperdreambooth_ext.pretrain.progress import Reporter

PEOPLE = Path(__file__).parents[2] / "benchmarks" / "people"
SMALL = {
    "photos": str(PEOPLE), "faces": 12, "held_out": 2, "batch": 4, "steps": 4, "width": 32, "recognizer_steps": 2,
    "evaluate_every": 2, "score_steps": 1,
}  # fmt: skip


class MakesFaces(DiffusersHost):
    """A checkpoint that makes faces, which random weights do not: its autoencoder finds a photo in any latents."""

    SIDE = 128

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        photos = sorted(PEOPLE.glob("*.jpg"))
        chosen = [photos[int(float(of.abs().sum()) * 1000) % len(photos)] for of in latents]
        pictures = [pil_to_tensor(Image.open(photo).resize((self.SIDE, self.SIDE))) for photo in chosen]
        return torch.stack(pictures).float() / 127.5 - 1


@pytest.fixture(scope="session")
def host(tiny):
    return tiny.host()


@pytest.fixture(scope="session")
def face_host(tiny):
    return MakesFaces(tiny.checkpoint)


@pytest.fixture(scope="session")
def prepared_folder(host, tmp_path_factory):
    """Faces and what is computed of them, of photos that ship with the benchmarks."""
    folder = tmp_path_factory.mktemp("faces")
    assert build(folder, SMALL, host, folder, until="faces") is None
    return folder


@pytest.fixture(scope="session")
def finished_folder(host, prepared_folder, tmp_path_factory):
    """A whole build of these faces, on one thread: what others are compared with."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finished")
    _going_on(host, prepared_folder, SMALL, folder)()
    return folder / "run"


@pytest.fixture
def finished(finished_folder, tmp_path):
    """A copy of it, which `run` goes on with."""
    return shutil.copytree(finished_folder, tmp_path / "run")


@pytest.fixture
def run(host, prepared_folder, tmp_path):
    """Go on with a copy of the prepared folder; returns the file."""
    return _going_on(host, prepared_folder, SMALL, tmp_path)


def _going_on(host, begun, settings, tmp_path):
    def go(wanted: dict | None = None, reporter: Reporter = Reporter(), name: str = "run", **keywords):
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(begun, folder)
            (folder / "build.json").unlink()
        return build(folder, settings | (wanted or {}), host, folder / "out", reporter, **keywords)

    return go
