"""Uploads as gradio makes them."""

from types import SimpleNamespace

import pytest
from PIL import Image

from hyperdreambooth_ext.ui.upload import read_upload


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """Gradio's upload folder, and a way to put a file there as gradio does."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))

    def put(content: bytes, name: str = "photo.jpg"):
        path = tmp_path / "gradio" / "abc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return SimpleNamespace(name=str(path))

    return put


@pytest.fixture
def photo(small_photo, uploads, tmp_path):
    Image.fromarray(small_photo).save(tmp_path / "small.png")
    return read_upload(uploads((tmp_path / "small.png").read_bytes(), "small.png"))
