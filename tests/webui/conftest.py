"""The WebUI faked in one fixture, for everything of ours that does not need a real one."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch

FAKE = Path(__file__).parent / "fake"
_FAKED = ("modules", "networks", "network", "network_lora", "extra_networks_lora", "hyperdreambooth_ext.webui")


@dataclass
class FakeWebui:
    """The fake's modules by name, and ours that were imported on top of them."""

    networks: ModuleType
    lora_dir: Path

    def __getattr__(self, name: str) -> ModuleType:
        return importlib.import_module(f"modules.{name}")

    def ours(self, name: str) -> ModuleType:
        return importlib.import_module(f"hyperdreambooth_ext.webui.{name}")

    def add_lora(self) -> None:
        """What the built-in Lora does in its own on_before_ui."""
        lora = importlib.import_module("extra_networks_lora")
        self.extra_networks.register_extra_network(lora.ExtraNetworkLora())


def _forget() -> None:
    for name in list(sys.modules):
        if name.startswith(tuple(f"{faked}." for faked in _FAKED)) or name in _FAKED:
            del sys.modules[name]


@pytest.fixture
def webui(tmp_path, monkeypatch):
    """A fresh WebUI with an empty LoRA folder; the built-in Lora is on."""
    _forget()
    for folder in ("lora", "modules/.."):
        monkeypatch.syspath_prepend(str((FAKE / folder).resolve()))
    networks = importlib.import_module("networks")
    networks.folders.append(str(tmp_path))
    fake = FakeWebui(networks, tmp_path)
    fake.shared.cmd_opts.lora_dir = str(tmp_path)
    fake.add_lora()
    yield fake
    _forget()


@pytest.fixture
def one_thread():
    """Threads that wait for each other at small work would count as the processor's time; and torch 2.1.2 corrupts
    memory in bfloat16's backward on several CPU threads, while users have bfloat16 on GPUs alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
