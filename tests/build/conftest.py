"""One folder with a few faces, found in photos and prepared once, that the tests of the training begin with."""

import shutil
from pathlib import Path

import pytest

from hyperdreambooth_ext.build.build import build
from hyperdreambooth_ext.build.progress import Reporter
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.standalone.models import CHECKPOINT

PEOPLE = Path(__file__).parents[2] / "benchmarks" / "people"
SMALL = {
    "photos": str(PEOPLE), "faces": 12, "held_out": 2, "batch": 4, "steps": 4, "width": 32, "recogniser_steps": 2,
    "evaluate_every": 2, "score_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="session")
def host():
    return DiffusersHost(CHECKPOINT)


@pytest.fixture(scope="session")
def prepared_folder(host, tmp_path_factory):
    """Faces and what is computed of them, of photos that ship with the benchmarks."""
    folder = tmp_path_factory.mktemp("faces")
    assert build(folder, SMALL, host, folder, stages=("faces",)) is None
    return folder


@pytest.fixture
def run(host, prepared_folder, tmp_path):
    """Go on with a copy of the prepared folder; returns the file."""

    def go(wanted: dict | None = None, reporter: Reporter = Reporter(), name: str = "run", **keywords):
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(prepared_folder, folder)
            (folder / "build.json").unlink()
        return build(folder, SMALL | (wanted or {}), host, folder / "out", reporter, **keywords)

    return go
