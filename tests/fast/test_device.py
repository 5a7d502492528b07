"""Which device the command line takes by itself, and what it says where the graphics card cannot be used."""

import pytest
import torch

from hyperdreambooth_ext.cli import commands


@pytest.fixture
def machine(monkeypatch):
    """machine(cuda=…, mps=…, nvidia=…) -> as if it were such a machine, with a torch without CUDA unless it has it."""

    def made(cuda: bool = False, mps: bool = False, nvidia: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "cuda", "12.1" if cuda else None)
        monkeypatch.setattr(commands.shutil, "which", lambda name: "/bin/nvidia-smi" if nvidia else None)

    return made


@pytest.mark.parametrize(
    ("there", "device"), [({}, "cpu"), ({"cuda": True}, "cuda"), ({"mps": True}, "mps"), ({"nvidia": True}, "cpu")]
)
def test_the_graphics_card_is_taken_where_torch_can_use_one(machine, there, device, capsys):
    machine(**there)
    assert commands.best_device() == device
    said = capsys.readouterr().err
    assert ("torch-backend=auto" in said and "NVIDIA" in said) == ("nvidia" in there)
