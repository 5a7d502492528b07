"""The extension inside AUTOMATIC1111's WebUI; nothing below this floor knows the WebUI's `modules`."""
