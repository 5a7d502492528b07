"""What the user is told under the image when a tag could not do what it says."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from modules import extra_networks
from torch import nn

from ..errors import ArchitectureError, UserError
from ..lidb.file import load
from ..lidb.injection import check_fits
from .settings import hypernetwork_dirs
from .tag import TAG

Linears = Callable[[], Mapping[str, nn.Linear]]
_OURS = re.compile(rf"<{TAG}:([^>]+)>")


def without_unreadable(prompt: str) -> tuple[str, list[str]]:
    """The prompt without tags of ours whose multipliers are no numbers, and a sentence about each.

    For one of them the WebUI's loader would print a traceback and leave out all LoRAs of the picture.
    """
    notes: list[str] = []

    def kept(tag: re.Match) -> str:
        found = list(_multiplier_notes(extra_networks.ExtraNetworkParams(items=tag[1].split(":"))))
        notes.extend(found)
        return "" if found else tag[0]

    return _OURS.sub(kept, prompt), notes


def tag_notes(
    networks: ModuleType | None, why_missing: str, extra_network_data: dict[str, list], linears: Linears
) -> Iterator[str]:
    """Sentences about the tags of one prompt, after the networks were activated.

    `extra_network_data` is what modules/extra_networks.py parses a prompt into: tag -> its parameters. `linears` gives
    the loaded model's layers; it is asked only when something went wrong.
    """
    ours = extra_network_data.get(TAG, [])
    if networks is None:
        if ours:
            yield why_missing
        return
    for params in ours:
        yield from _multiplier_notes(params)
        if _on_disk(networks, _name(params)) is None:
            yield (f'There is no LiDB "{_name(params)}" in the LoRA folder: check the name in the tag.')
    if not hasattr(networks, "module_types"):
        # Forge merges elsewhere and says on its console what did not match.
        return
    for params in [*ours, *extra_network_data.get("lora", [])]:
        yield from _file_notes(networks, _name(params), linears)


def _multiplier_notes(params: Any) -> Iterator[str]:
    values = [*params.positional[1:3], *(params.named[key] for key in ("te", "unet") if key in params.named)]
    for value in values:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            yield (
                f'The multiplier "{value}" of <lidb:{_name(params)}:…> is no number, so the tag does nothing: '
                f"write <lidb:{_name(params)}:0.8>."
            )


def _file_notes(networks: ModuleType, name: str, linears: Linears) -> Iterator[str]:
    on_disk = _on_disk(networks, name)
    if on_disk is None or TAG not in on_disk.metadata:
        return
    network = next((one for one in networks.loaded_networks if one.network_on_disk is on_disk), None)
    if network is not None and len(network.modules) == _layers(on_disk.metadata[TAG]):
        return
    try:
        lidb, info = load(Path(on_disk.filename), hypernetwork_dirs())
        check_fits(linears(), lidb)
    except ArchitectureError:
        made_for = f' "{info.checkpoint}"' if info.checkpoint else ""
        yield (
            f'The LiDB "{name}" was made for a model of another architecture{made_for}: load such a checkpoint, or '
            "personalize again."
        )
    except UserError as error:
        yield str(error)


def _on_disk(networks: ModuleType, name: str) -> Any:
    """The file that the loader takes for `name` (networks.py, load_networks)."""
    several = name.lower() in networks.forbidden_network_aliases
    return (networks.available_networks if several else networks.available_network_aliases).get(name)


def _layers(header: str | dict) -> int:
    """How many layers a file's header says it has; the WebUI has parsed what looks like JSON (sd_models.py)."""
    return len((json.loads(header) if isinstance(header, str) else header)["shapes"])


def _name(params: Any) -> str:
    return params.positional[0] if params.positional else ""
