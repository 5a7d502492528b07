"""The tiny model with the sample photo, and one personalization of it, shared by the tests that look at them."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from hyperdreambooth_ext.cli.cli import main
from hyperdreambooth_ext.images.face import largest_face
from hyperdreambooth_ext.personalize.batch import prepare_subject
from hyperdreambooth_ext.shipped import SAMPLE_PHOTO


@pytest.fixture(scope="module")
def host(tiny):
    return tiny.host()


@pytest.fixture(scope="module")
def subject(host, sample_photo):
    return prepare_subject(largest_face(sample_photo, host.default_size), host, "a sks face")


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


def learn(folder: Path, *options: object) -> Learned:
    """The sample photo learned as "anna" into `folder`, by the command line."""
    command = ["personalize", SAMPLE_PHOTO, "--name", "anna", "--out", folder, "--json", *options]
    assert main([str(word) for word in command]) == 0
    return Learned(folder, folder / "anna.safetensors")


@pytest.fixture(scope="session")
def learned(tiny, tmp_path_factory) -> Learned:
    options = ("--checkpoint", tiny.checkpoint, "--hypernetwork", tiny.hypernetwork_file, "--steps", 2)
    return learn(tmp_path_factory.mktemp("lidb"), *options)
