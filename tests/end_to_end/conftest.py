"""One personalisation of the sample photo on the embedded model, shared by the tests that look at its result."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyperdreambooth_ext.standalone.cli import main
from hyperdreambooth_ext.standalone.models import SAMPLE_PHOTO


@pytest.fixture
def run(capsys):
    """Run a command in this process; returns (exit code, the JSON summary, standard error)."""

    def command(*argv: object):
        code = main([*map(str, argv), "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]), captured.err

    return command


@dataclass(frozen=True)
class Learned:
    folder: Path
    file: Path


@pytest.fixture(scope="session")
def learned(tmp_path_factory) -> Learned:
    folder = tmp_path_factory.mktemp("lidb")
    assert main(["personalize", str(SAMPLE_PHOTO), "--name", "anna", "--out", str(folder), "--json"]) == 0
    return Learned(folder, folder / "anna.safetensors")
