"""Two axes for the WebUI's X/Y/Z plot: which LiDB, and how strongly it acts."""

import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from modules import scripts

from .host import any_networks
from .tag import TAG

NAME, MULTIPLIER = "[LiDB] name", "[LiDB] multiplier"
_TAG = re.compile(rf"<{TAG}:([^:>]+)((?::[^>]*)?)>")


def with_name(prompt: str, name: str) -> str:
    """`prompt` with `name` in its first LiDB tag, or with a tag of its own at the end."""
    if not _TAG.search(prompt):
        return f"{prompt} <{TAG}:{name}:1>"
    return _TAG.sub(lambda match: f"<{TAG}:{name}{match.group(2)}>", prompt, count=1)


def with_multiplier(prompt: str, multiplier: float) -> str:
    """`prompt` with this multiplier in all its LiDB tags."""
    return _TAG.sub(lambda match: f"<{TAG}:{match.group(1)}:{multiplier:g}>", prompt)


def add_axes() -> None:
    """The callback of on_before_ui: adds the axes to the script xyz_grid.py, once."""
    grid = _xyz_grid()
    if grid is None or any(option.label == NAME for option in grid.axis_options):
        return
    grid.axis_options.append(grid.AxisOption(NAME, str, _applied(with_name), choices=_names))
    grid.axis_options.append(grid.AxisOption(MULTIPLIER, float, _applied(with_multiplier)))


def _applied(change: Callable[[str, Any], str]) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, x: Any, xs: Any) -> None:  # noqa: ARG001
        p.prompt = change(p.prompt, x) if isinstance(p.prompt, str) else [change(one, x) for one in p.prompt]

    return apply


def _names() -> list[str]:
    networks = any_networks()
    found = networks.available_networks.items() if networks is not None else ()
    return sorted(name for name, on_disk in found if TAG in on_disk.metadata)


def _xyz_grid() -> ModuleType | None:
    """The loaded script's module: it is not in sys.modules under a name that could be imported."""
    for data in scripts.scripts_data:
        if data.script_class.__module__ == "xyz_grid.py" or data.path.endswith("xyz_grid.py"):
            return data.module
    return sys.modules.get("xyz_grid")
