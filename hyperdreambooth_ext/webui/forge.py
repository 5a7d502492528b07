"""The tag in Forge: its own LoRA loader is handed what the exported LoRA would hold.

Forge merges by its own patcher, whose form changes between its versions; a table of tensors with kohya's keys is what
all of them take (extensions-builtin/sd_forge_lora/networks.py, load_networks).
"""

from pathlib import Path
from types import ModuleType
from typing import Any

from modules import extra_networks

from ..lidb.file import is_lidb, load
from ..lidb.lora import lora_tensors
from .settings import hypernetwork_dirs


def register_forge_tag(networks: ModuleType, lora_network: Any, tag: str) -> None:
    """Teach Forge's loader our files, once, and our tag, after every "Reload UI"."""
    theirs = networks.load_lora_state_dict
    if not hasattr(theirs, "reads_lidb"):

        def load_lora_state_dict(filename: str) -> Any:
            path = Path(filename)
            if path.suffix == ".safetensors" and is_lidb(path):
                return lora_tensors(load(path, hypernetwork_dirs())[0])
            return theirs(filename)

        load_lora_state_dict.reads_lidb = True  # type: ignore[attr-defined]
        networks.load_lora_state_dict = load_lora_state_dict  # type: ignore[attr-defined]
    extra_networks.register_extra_network_alias(lora_network, tag)
