"""The page "LiDB" of the extra networks: one card a file, with the face that the file carries."""

import os
import sys
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from modules import shared, ui_extra_networks

from ..errors import FileError
from ..lidb.file import read_info
from .card_prompt import card_prompt, default_notes
from .host import any_networks
from .settings import cards_wanted, lora_dir
from .tag import TAG


class LidbPage(ui_extra_networks.ExtraNetworksPage):
    """As ui_extra_networks_lora.py, for files that say that they are LiDBs."""

    def __init__(self) -> None:
        super().__init__("LiDB")

    def refresh(self) -> None:
        """The button "Refresh"."""
        networks = any_networks()
        if networks is not None:
            networks.list_available_networks()

    def create_item(self, name: str, index: int | None = None, enable_filter: bool = True) -> dict[str, Any] | None:
        """One card, None for a file that is no LiDB or, with the filter, one made for another kind of model."""
        networks = any_networks()
        on_disk = networks.available_networks.get(name) if networks is not None else None
        if on_disk is None or TAG not in on_disk.metadata or (enable_filter and not _fits(on_disk)):
            return None
        path = os.path.splitext(on_disk.filename)[0]
        terms = self.search_terms_from_path(on_disk.filename), on_disk.hash
        item = {
            "name": name,
            "filename": on_disk.filename,
            "shorthash": on_disk.shorthash,
            "preview": self.find_preview(path) or self._embedded_preview(path, name, on_disk.metadata),
            "description": self.find_description(path),
            # The page puts these between its tags as they are, and the hash is what the file says of itself.
            "search_terms": [escape(term) for term in terms if term],
            "local_preview": f"{path}.{shared.opts.samples_format}",
            "metadata": on_disk.metadata,
            "sort_keys": {"default": index, **self.get_sort_keys(on_disk.filename)},
            "sd_version": getattr(getattr(on_disk, "sd_version", None), "name", "Unknown"),
        }
        self.read_user_metadata(item)
        item["prompt"] = card_prompt(f"{TAG}:{on_disk.get_alias()}", item["user_metadata"])
        return item

    def _embedded_preview(self, path: str, name: str, metadata: dict[str, Any]) -> str | None:
        find = getattr(self, "find_embedded_preview", None)
        return find(path, name, metadata) if find else _face_of(Path(f"{path}.safetensors"))

    def list_items(self) -> Iterator[dict[str, Any]]:
        networks = any_networks()
        # A list: a generation may change the table meanwhile.
        for index, name in enumerate(list(networks.available_networks) if networks is not None else ()):
            item = self.create_item(name, index)
            if item is not None:
                yield item

    def read_user_metadata(self, item: dict[str, Any], use_cache: bool = True) -> None:
        """The notes in NAME.json; one that is no table of texts must not cost the whole page."""
        try:
            super().read_user_metadata(item, use_cache)
        except AttributeError:
            item["user_metadata"] = {}
        if not isinstance(item.get("description"), str | None):
            item["description"] = str(item["description"])
        item["user_metadata"] = default_notes(item["metadata"]) | item["user_metadata"]

    def create_user_metadata_editor(self, ui: Any, tabname: str) -> Any:
        """That of the Lora cards, which has activation text and preferred weight, where Lora is on."""
        editor = getattr(sys.modules.get("ui_edit_user_metadata"), "LoraUserMetadataEditor", None)
        return editor(ui, tabname, self) if editor else super().create_user_metadata_editor(ui, tabname)

    def allowed_directories_for_previews(self) -> list[str]:
        return [str(lora_dir())]


def register_page() -> None:
    """The callback of on_before_ui."""
    if cards_wanted():
        ui_extra_networks.register_page(LidbPage())


def _face_of(lidb: Path) -> str | None:
    """The picture itself, as an address: Forge Classic has no route to the pictures within files."""
    try:
        thumbnail = read_info(lidb).thumbnail
    except FileError:
        return None
    return f"data:image/jpeg;base64,{b64encode(thumbnail).decode()}" if thumbnail else None


def _fits(on_disk: Any) -> bool:
    if getattr(shared.opts, "lora_show_all", False) or not shared.sd_model or not hasattr(on_disk, "sd_version"):
        return True
    kinds = ("sdxl", "is_sdxl"), ("sd2", "is_sd2"), ("sd1", "is_sd1")
    loaded = next((kind for kind, flag in kinds if getattr(shared.sd_model, flag, False)), "")
    made_for = on_disk.sd_version.name.lower()
    # Forge tells neither before the first picture.
    return not loaded or made_for in (loaded, "unknown")
