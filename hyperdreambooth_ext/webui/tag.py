"""`<lidb:name:0.8>`: the WebUI's own loader reads our files, and our tag means the same as its `<lora:…>`.

The tag becomes part of the same list as `<lora:…>`, so merge order, backup, restore, hires fix, hashes in the
infotext, `te=`/`unet=`/`dyn=` and model switches are the WebUI's.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as functional
from modules import devices, extra_networks
from torch import nn

from ..errors import ArchitectureError
from ..lidb.file import SUFFIX, load
from ..lidb.lora import lora_tensors
from .host import lora_network
from .settings import hypernetwork_dirs

TAG = "lidb"
_PART = SUFFIX.removeprefix(".")


class Factor(nn.Module):
    """One of a layer's two factors. Torch's Linear fills itself with random numbers first, which takes longer."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.to(devices.cpu, devices.dtype), requires_grad=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Asked for only with the setting "Lora/Networks: use old method"."""
        return functional.linear(hidden_states, self.weight)


class ModuleTypeLidb:
    """Reads the tensors of a LiDB file as the LoRA that `export` would write, so that both make the same picture.

    One of `networks.module_types` (extensions-builtin/Lora/networks.py, load_network).
    """

    def __init__(self, network_module_lora: Any) -> None:
        """`network_module_lora`: the class NetworkModuleLora (network_lora.py), which does the merging."""

        class NetworkModuleLidb(network_module_lora):
            def create_module(self, weights: dict, key: str, none_ok: bool = False) -> Factor | None:  # noqa: ARG002
                return Factor(weights[key]) if key in weights else None

        self.network_module = NetworkModuleLidb

    def create_module(self, net: Any, weights: Any) -> Any:
        """A network module for one layer, or None for tensors that are not ours.

        Raises FileError when the file is damaged and ArchitectureError when the layer has another shape here; the
        loader then leaves the file out, and `notes` says why.
        """
        if _PART not in weights.w:
            return None
        tensors = vars(net).get("lidb_as_lora")
        if tensors is None:
            tensors = net.lidb_as_lora = lora_tensors(load(Path(net.network_on_disk.filename), hypernetwork_dirs())[0])
        prefix = f"{weights.network_key.removesuffix(SUFFIX)}."
        parts = {name: tensors.pop(prefix + name) for name in ("lora_up.weight", "lora_down.weight", "alpha")}
        shape = (parts["lora_up.weight"].shape[0], parts["lora_down.weight"].shape[1])
        if getattr(weights.sd_module, "weight", None) is None or weights.sd_module.weight.shape != shape:
            raise ArchitectureError(f"{prefix[:-1]} has another shape in the loaded model.")
        return self.network_module(net, weights._replace(w=parts))


def register_tag(networks: ModuleType) -> None:
    """Teach Lora our files and our tag; call it after Lora has registered itself, as often as you like.

    `networks.module_types` outlives a "Reload UI", the aliases do not.
    """
    ours = ModuleTypeLidb.__name__
    networks.module_types[:] = [kind for kind in networks.module_types if type(kind).__name__ != ours]
    networks.module_types.append(ModuleTypeLidb(networks.network_lora.NetworkModuleLora))
    extra_networks.register_extra_network_alias(lora_network(), TAG)
