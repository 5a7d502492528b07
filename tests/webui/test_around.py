"""What is around the tag: cards, X/Y/Z axes, pasted infotexts, settings, credentials, and the order of it all."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.file import Info
from hyperdreambooth_ext.shipped import CHECKPOINT
from tests.conftest import SMALL, random_lidb

ROOT = Path(__file__).parents[2]


@pytest.fixture
def anna(webui, small_lidb):
    file.save(webui.lora_dir / "anna.safetensors", small_lidb, Info(name="anna", trigger="sks", thumbnail=b"jpeg"))
    webui.networks.list_available_networks()
    return webui.networks.available_networks["anna"]


def test_a_card_inserts_the_tag_and_shows_the_face_of_the_file(webui, anna):
    webui.ours("cards").register_page()
    (page,) = webui.ui_extra_networks.extra_pages
    webui.shared.sd_model = SimpleNamespace(is_sd1=True)
    (item,) = page.list_items()
    prompt = 'get_uiCurrentTabContent().querySelector("textarea").value'
    assert item["prompt"] == (
        '"<lidb:anna:" + opts.extra_networks_default_multiplier + ">" + '
        f'({prompt}.includes("a sks face") && !{prompt}.includes("<lidb:anna:") ? "" : " a sks face")'
    )
    assert item["user_metadata"]["activation text"] == "a sks face", "the card's editor shows it"
    assert item["preview"] == "./cover?item=anna" and item["shorthash"] == anna.shorthash


def test_a_card_carries_the_face_itself_where_the_webui_has_no_route_to_it(webui, anna, monkeypatch):
    cards = webui.ours("cards")
    # As in Forge Classic.
    monkeypatch.delattr(cards.ui_extra_networks.ExtraNetworksPage, "find_embedded_preview")
    assert cards.LidbPage().create_item("anna")["preview"] == "data:image/jpeg;base64,anBlZw=="
    Path(anna.filename).write_bytes(b"cut off")
    assert cards.LidbPage().create_item("anna")["preview"] is None


def test_cards_of_another_kind_of_model_are_hidden_unless_all_are_wanted(webui, anna):
    page = webui.ours("cards").LidbPage()
    webui.shared.sd_model = SimpleNamespace(is_sd1=False, is_sdxl=True)
    assert list(page.list_items()) == []
    assert page.create_item("anna", enable_filter=False) is not None
    webui.shared.opts.lora_show_all = True
    assert [item["name"] for item in page.list_items()] == ["anna"]


def test_plain_loras_have_no_lidb_card(webui, small_lidb):
    from hyperdreambooth_ext.lidb.lora import export_lora

    export_lora(webui.lora_dir / "x.safetensors", small_lidb, Info(name="x"))
    webui.networks.list_available_networks()
    assert list(webui.ours("cards").LidbPage().list_items()) == []


def test_the_cards_can_be_switched_off(webui):
    webui.shared.opts.data["hyperdreambooth_cards"] = False
    webui.ours("cards").register_page()
    assert webui.ui_extra_networks.extra_pages == []


def test_the_axes_change_the_tags_of_a_prompt(webui, anna):
    xyz = webui.ours("xyz")
    assert xyz.with_multiplier("a <lidb:anna:0.5> b <lidb:ben>", 0.25) == "a <lidb:anna:0.25> b <lidb:ben:0.25>"
    assert xyz.with_name("a <lidb:anna:0.5> <lidb:ben:1>", "eva") == "a <lidb:eva:0.5> <lidb:ben:1>"
    assert xyz.with_name("a face", "eva") == "a face <lidb:eva:1>"


def test_the_axes_are_added_once(webui, anna):
    made = []
    grid = SimpleNamespace(axis_options=made, AxisOption=lambda *a, **k: SimpleNamespace(label=a[0], apply=a[2], **k))
    data = webui.scripts.ScriptClassData(webui.scripts.Script, "scripts/xyz_grid.py", "", grid)
    webui.scripts.scripts_data.append(data)
    for _ in range(2):
        webui.ours("xyz").add_axes()
    assert [option.label for option in made] == ["[LiDB] name", "[LiDB] multiplier"]
    assert made[0].choices() == ["anna"]
    p = SimpleNamespace(prompt="a face <lidb:anna:1>")
    made[1].apply(p, 0.5, [0.5])
    assert p.prompt == "a face <lidb:anna:0.5>"


def test_a_pasted_tag_finds_the_file_by_its_hash(webui, anna):
    pasted = webui.ours("infotext").pasted
    params = {"Prompt": "a face <lidb:maria:0.8>, <lidb:eva:1>", "Lora hashes": f"maria: {anna.shorthash}, eva: 0000"}
    pasted("", params)
    assert params["Prompt"] == "a face <lidb:anna:0.8>, <lidb:eva:1>"
    pasted("", {"Prompt": "no hashes"})


def test_a_pasted_name_is_kept_where_a_copy_has_the_same_hash(webui, anna):
    networks = webui.networks
    networks.available_network_hash_lookup[anna.shorthash] = SimpleNamespace(get_alias=lambda: "a copy")
    params = {"Prompt": "a face <lidb:anna:0.8>", "Lora hashes": f"anna: {anna.shorthash}"}
    webui.ours("infotext").pasted("", params)
    assert params["Prompt"] == "a face <lidb:anna:0.8>"


def test_the_bundled_checkpoint_is_offered_and_taken_back(webui, tmp_path):
    bundled = webui.ours("bundled")
    bundled.offer(True, tmp_path / "checkpoints")
    config = yaml.safe_load((tmp_path / "checkpoints" / CHECKPOINT.with_suffix(".yaml").name).read_text())
    clip = Path(config["model"]["params"]["cond_stage_config"]["params"]["version"])
    assert clip.is_absolute() and (clip / "config.json").is_file()
    copy = tmp_path / "checkpoints" / CHECKPOINT.name
    assert copy.read_bytes() == CHECKPOINT.read_bytes()
    copy.write_bytes(b"an older version")
    bundled.offer(True, tmp_path / "checkpoints")
    assert copy.stat().st_size == CHECKPOINT.stat().st_size
    bundled.offer(False, tmp_path / "checkpoints")
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_somebody_elses_file_of_that_name_is_left_alone(webui, tmp_path):
    (tmp_path / CHECKPOINT.name).write_bytes(b"theirs")
    for wanted in (True, False):
        webui.ours("bundled").offer(wanted, tmp_path)
        assert (tmp_path / CHECKPOINT.name).read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("folder", "expected"), [("", "."), ("people", "people"), ("../elsewhere", "."), ("/elsewhere", ".")]
)
def test_lidbs_are_saved_within_the_lora_folder(webui, folder, expected):
    settings = webui.ours("settings")
    settings.add_settings()
    webui.shared.opts.data["hyperdreambooth_folder"] = folder
    assert settings.lidb_dir().resolve() == (webui.lora_dir / expected).resolve()


def test_everything_registers_at_its_own_time(webui, anna):
    """The tag comes last, when Lora has registered itself; a "Reload UI" runs it all again."""
    for _ in range(2):
        registered = webui.script_callbacks.callback_map
        for callbacks in registered.values():
            callbacks.clear()
        webui.extra_networks.extra_network_aliases.clear()
        webui.ours("entry").register()
        assert all(registered.values())
        for callback in registered["callbacks_before_ui"] + registered["callbacks_ui_settings"]:
            callback()
        assert "lidb" not in webui.extra_networks.extra_network_aliases
        for callback in registered["callbacks_app_started"]:
            callback(None, None)
        assert "lidb" in webui.extra_networks.extra_network_aliases


def test_a_missing_lora_extension_is_no_error(webui, capsys):
    webui.extra_networks.extra_network_registry.clear()
    webui.ours("entry").register()
    for callback in webui.script_callbacks.callback_map["callbacks_app_started"]:
        callback(None, None)
    assert "switch it on under Extensions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("auth", "header", "status"),
    [("", None, 200), ("u:p,v:q", None, 401), ("u:p,v:q", ("v", "q"), 200), ("u:p", ("u", "x"), 401)],
)
def test_the_api_asks_for_the_credentials_of_the_webui(webui, auth, header, status):
    fastapi = pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    webui.shared.cmd_opts.api, webui.shared.cmd_opts.api_auth = True, auth or None
    app = fastapi.FastAPI()
    webui.ours("mount").api(app)
    client = testclient.TestClient(app)
    assert client.get("/hyperdreambooth/v1/version", auth=header).status_code == status
    assert client.get("/hyperdreambooth/v1/lidbs", auth=header).status_code == status


def test_without_api_there_are_no_routes(webui):
    fastapi = pytest.importorskip("fastapi")
    webui.shared.cmd_opts.api = webui.shared.cmd_opts.nowebui = False
    app = fastapi.FastAPI()
    webui.ours("mount").api(app)
    assert not [route for route in app.routes if "hyperdreambooth" in route.path]


def test_install_py_says_nothing_and_imports_no_library():
    """The WebUI runs it in a process of its own at every start."""
    command = "import runpy, sys; runpy.run_path('install.py', run_name='__main__'); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_the_entry_is_thin():
    lines = (ROOT / "scripts" / "hyperdreambooth.py").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith('"""')]) == 2
    assert os.sep not in "".join(lines)


def test_a_strangers_notes_and_hash_are_data_on_the_card(webui, monkeypatch):
    """NAME.json and the file's own hash come from whoever shared the file; the page runs the prompt as a script."""
    cards = webui.ours("cards")
    evil = '0); window.owned=1; ("'
    for weight in (evil, True, [1], {"a": 1}, float("nan"), 10**400):
        prompt = cards.card_prompt('lidb:x"y', {"preferred weight": weight, "activation text": '"); owned("'})
        assert prompt.startswith('"<lidb:x\\"y:" + opts.extra_networks_default_multiplier + ">" + (get_ui'), prompt
        outside = re.sub(r'"(?:\\.|[^"\\])*"', '""', prompt)
        assert outside == (
            '"" + opts.extra_networks_default_multiplier + "" + '
            '(get_uiCurrentTabContent().querySelector("").value.includes("") && '
            '!get_uiCurrentTabContent().querySelector("").value.includes("") ? "" : "")'
        ), prompt
    assert cards.card_prompt("lidb:x", {"preferred weight": 0.7, "activation text": 5}) == '"<lidb:x:" + 0.7 + ">"'
    file.save(webui.lora_dir / "anna.safetensors", random_lidb(SMALL), file.Info(name="anna"))
    webui.networks.list_available_networks()
    webui.networks.available_networks["anna"].hash = "<img src=x onerror=owned()>"

    def no_table(self, item, use_cache=True):
        raise AttributeError("'list' object has no attribute 'get'")

    monkeypatch.setattr(cards.ui_extra_networks.ExtraNetworksPage, "read_user_metadata", no_table)
    item = cards.LidbPage().create_item("anna")
    assert not any("<" in term for term in item["search_terms"]) and item["user_metadata"] == {}
