"""Other ways to start a real WebUI: without its page, without its LoRA extension, without credentials."""

import json

import pytest

from tests.bundled import NAME

from .server import Server, prepare


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    data = tmp_path_factory.mktemp("other-starts")
    prepare(data)
    return data


def test_without_a_page_the_api_personalizes_and_the_tag_works(root, data, photo):
    with Server(root, data, "--nowebui") as webui:
        result = webui.personalize(photo, "anna", quality="fast", steps=3)
        blank, with_tag = webui.picture("a sks face"), webui.picture(f"a sks face {result['tag']}")
        assert (blank != with_tag).any()
        assert (with_tag == webui.picture(f"a sks face <lora:{webui.export('anna')}:1>")).all()


def test_without_the_lora_extension_the_user_is_told_and_nothing_breaks(root, data, photo):
    config = data / "config.json"
    settings = json.loads(config.read_text()) if config.exists() else {}
    config.write_text(json.dumps({**settings, "disabled_extensions": ["Lora"]}))
    try:
        with Server(root, data) as webui:
            webui.picture("a sks face <lidb:anna:1>")
            (sentence,) = webui.call("/probe/comments")
            assert sentence.startswith("The built-in extension Lora is switched off")
            assert "HyperDreamBooth: The built-in extension Lora" in webui.log.read_text()
            # Learning needs no loader; the folder is the WebUI's own.
            result = webui.personalize(photo, "ben", quality="fast", steps=2)
            assert result["file"] == str(data / "models" / "Lora" / "ben.safetensors")
    finally:
        config.write_text(json.dumps(settings))


def test_the_bundled_checkpoint_can_be_offered(root, data):
    with Server(root, data) as webui:
        for file in (data / "models" / "Stable-diffusion").glob(f"{NAME}.*"):
            file.unlink()
        webui.call("/sdapi/v1/options", {"hyperdreambooth_bundled": True})
        titles = [model["model_name"] for model in webui.call("/sdapi/v1/sd-models")]
        assert titles == [NAME]
        webui.picture("a sks face")
        webui.call("/sdapi/v1/options", {"hyperdreambooth_bundled": False})
        assert not list((data / "models" / "Stable-diffusion").glob(f"{NAME}.*"))
