"""Remembers who registered for what; a test calls them in the WebUI's order."""

KINDS = ("before_ui", "ui_settings", "ui_tabs", "infotext_pasted", "app_started")  # fake only
callback_map = {f"callbacks_{kind}": [] for kind in KINDS}


def add_callback(callbacks, fun, *, name=None, category="unknown", filename=None):
    callbacks.append(fun)
