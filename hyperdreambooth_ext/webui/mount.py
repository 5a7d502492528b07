"""The tab and the API inside the WebUI."""

import secrets
from functools import cache
from typing import Any

from fastapi import Depends, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from modules import shared

from ..jobs.jobs import Studio
from .backend import WebuiBackend


@cache
def backend() -> WebuiBackend:
    """The WebUI as the jobs see it."""
    return WebuiBackend()


@cache
def studio() -> Studio:
    """The one queue of this process: a job goes on through a "Reload UI", and the new tab finds it again."""
    return Studio(backend())


def _credentials() -> dict[str, str]:
    """user -> password, of --api-auth (modules/api/api.py)."""
    return dict(pair.split(":") for pair in shared.cmd_opts.api_auth.split(","))


def authenticated(given: HTTPBasicCredentials = Depends(HTTPBasic())) -> None:
    """A dependency of every route: the WebUI's --api-auth does not cover the routes that an extension adds."""
    password = _credentials().get(given.username)
    if password is None or not secrets.compare_digest(given.password.encode(), password.encode()):
        raise HTTPException(401, "Incorrect username or password", headers={"WWW-Authenticate": "Basic"})


def api(app: Any) -> None:
    """Add the routes to the WebUI's application where it serves an API at all (--api, --nowebui)."""
    if shared.cmd_opts.api or shared.cmd_opts.nowebui:
        from ..api.routes import mount_api

        mount_api(app, studio(), [Depends(authenticated)] if shared.cmd_opts.api_auth else [])


def tabs() -> list[tuple[Any, str, str]]:
    """The callback of on_ui_tabs."""
    # Here and not above: what is not shown need not be imported when the WebUI starts.
    from ..ui.tab import build_tab

    return [(build_tab(studio()), "HyperDreamBooth", "hyperdreambooth")]
