"""Loaded by the WebUI; everything is in the package."""

from hyperdreambooth_ext.webui.entry import TagNotes, register  # noqa: F401  (the WebUI looks for Script classes here)

register()
