"""The tag in Forge: its own LoRA loader is handed what the exported LoRA would hold.

Forge merges by its own patcher, whose form changes between its versions; a table of tensors with kohya's keys is what
all of them take (extensions-builtin/sd_forge_lora/networks.py, load_networks).
"""

from pathlib import Path
from types import ModuleType
from typing import Any

from modules import extra_networks

from ..lidb.file import load
from ..lidb.lora import lora_tensors
from ..lidb.safetensors_bytes import metadata_of
from .settings import hypernetwork_dirs

_MAX_BYTES = 1 << 40


def register_forge_tag(networks: ModuleType, lora_network: Any, tag: str) -> None:
    """Teach Forge's loader our files, once, and our tag, after every "Reload UI"."""
    theirs = networks.load_lora_state_dict
    if not hasattr(theirs, "reads_lidb"):

        def load_lora_state_dict(filename: str) -> Any:
            path = Path(filename)
            if path.suffix == ".safetensors" and tag in metadata_of(path, _MAX_BYTES):
                return lora_tensors(load(path, hypernetwork_dirs())[0])
            return theirs(filename)

        load_lora_state_dict.reads_lidb = True  # type: ignore[attr-defined]
        networks.load_lora_state_dict = load_lora_state_dict  # type: ignore[attr-defined]
    extra_networks.register_extra_network_alias(lora_network, tag)
