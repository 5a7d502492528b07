"""Our own window: the tab, the API, the script and the style sheet are served; a port in use is a sentence."""

import socket
from argparse import Namespace

import pytest
from fastapi.testclient import TestClient

from hyperdreambooth_ext.cli.window import SCRIPT, SCRIPT_URL, STYLE, create_app, serve
from hyperdreambooth_ext.errors import UserError


def test_the_page_the_script_and_the_api_are_one_application(loaded_backend, tmp_path):
    with TestClient(create_app(loaded_backend.again(tmp_path))) as client:
        config = client.get("/config").json()
        shown = [component["props"] for component in config["components"]]
        assert any(props.get("elem_id") == "hdb_personalize" for props in shown)
        assert any(STYLE.read_text() in str(props.get("value")) for props in shown)
        assert client.get(SCRIPT_URL).text == SCRIPT.read_text()
        assert client.get("/hyperdreambooth/v1/version").json()["program"] == "standalone"
        assert "/hyperdreambooth/v1/personalize" in client.get("/openapi.json").json()["paths"]


def test_a_port_that_is_taken_is_a_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="take another"):
            serve(Namespace(port=port, listen=False, out=tmp_path, checkpoint=None, device="cpu"))
