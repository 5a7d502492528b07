"""Pasting an infotext: a LiDB is found by its hash, also under another name.

Writing is the WebUI's: with the tag's alias, our files are among its "Lora hashes".
"""

import re
from typing import Any

from .host import any_networks
from .tag import TAG

_TAG_NAME = re.compile(rf"<{TAG}:([^:>]+)")


def pasted(infotext: str, params: dict[str, Any]) -> None:  # noqa: ARG001
    """The callback of on_infotext_pasted: replaces names in the tags by those of the files with the same hash."""
    networks = any_networks()
    hashes = dict(_pairs(params.get("Lora hashes", "")))
    if networks is None or not hashes or "Prompt" not in params:
        return

    def renamed(match: re.Match) -> str:
        wanted = hashes.get(match.group(1))
        # Two files may hold the same: the name that was written is kept where it still means that.
        own = networks.available_networks.get(match.group(1))
        if own is not None and own.shorthash == wanted:
            return match.group(0)
        on_disk = networks.available_network_hash_lookup.get(wanted)
        return match.group(0) if on_disk is None else f"<{TAG}:{on_disk.get_alias()}"

    params["Prompt"] = _TAG_NAME.sub(renamed, params["Prompt"])


def _pairs(text: str) -> list[tuple[str, str]]:
    """`anna: 0123456789ab, ben: …` -> [("anna", "0123456789ab"), …]."""
    pairs = [part.partition(":") for part in text.split(",")]
    return [(name.strip(), value.strip()) for name, _, value in pairs if value.strip()]
