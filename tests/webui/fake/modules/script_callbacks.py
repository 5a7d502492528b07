"""Remembers who registered for what; a test calls them in the WebUI's order."""

registered = {}  # fake only


def _remember(kind, callback):
    registered.setdefault(kind, []).append(callback)


def on_app_started(callback, *, name=None):
    _remember("app_started", callback)


def on_before_ui(callback, *, name=None):
    _remember("before_ui", callback)


def on_ui_settings(callback, *, name=None):
    _remember("ui_settings", callback)


def on_ui_tabs(callback, *, name=None):
    _remember("ui_tabs", callback)


def on_infotext_pasted(callback, *, name=None):
    _remember("infotext_pasted", callback)
