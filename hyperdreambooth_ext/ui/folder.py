"""Showing a folder in the file manager, for somebody who sits at this very machine."""

import ipaddress
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import UserError


def can_open(request: Any) -> bool:
    """Whether the browser of this gradio request runs on this machine, and there is a file manager to open."""
    return is_local(request) and _opener() is not None


def is_local(request: Any) -> bool:
    """Whether the browser of this gradio request runs on this machine."""
    client = getattr(request, "client", None)
    headers = getattr(request, "headers", None) or {}
    # Behind a proxy everybody seems to be local.
    if client is None or any(name in headers for name in ("x-forwarded-for", "forwarded")):
        return False
    try:
        return ipaddress.ip_address(client.host).is_loopback
    except ValueError:
        return False


def open_folder(folder: Path) -> None:
    """Raises UserError where there is no file manager."""
    opener = _opener()
    if opener is None:
        raise UserError(f"There is no file manager to open here: the folder is {folder}.")
    if opener == "startfile":
        os.startfile(folder)  # type: ignore[attr-defined]  # Windows only
    else:
        subprocess.Popen([opener, str(folder)])


def _opener() -> str | None:
    if os.name == "nt":
        return "startfile"
    if sys.platform == "darwin":
        return "open"
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return shutil.which("xdg-open") if has_screen else None
