"""Under the image: one sentence for whatever a tag could not do, silence otherwise."""

from types import SimpleNamespace

import pytest
from torch import nn

from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.file import Info
from hyperdreambooth_ext.lidb.lora import export_lora
from tests.conftest import SMALL


@pytest.fixture
def notes(webui, small_lidb):
    """prompt data -> sentences, after the networks that are named were loaded as the WebUI would."""
    file.save(webui.lora_dir / "anna.safetensors", small_lidb, Info(name="anna", checkpoint="another"))
    linears = {layer.key: nn.Linear(layer.in_features, layer.out_features) for layer in SMALL.layers}
    webui.networks.linears.update(linears)
    webui.networks.list_available_networks()
    webui.ours("tag").register_tag(webui.networks)

    def of(*tags, load=True, kind="lidb"):
        params = [webui.extra_networks.ExtraNetworkParams(tag.split(":")) for tag in tags]
        if load:
            on_disk = webui.networks.available_networks["anna"]
            webui.networks.loaded_networks[:] = [webui.networks.load_network("anna", on_disk)]
        lora = webui.ours("host")
        tag_notes = webui.ours("notes").tag_notes
        return list(tag_notes(lora.find_networks(), lora.why_missing(), {kind: params}, lambda: webui.networks.linears))

    return of


@pytest.mark.parametrize("tag", ["anna", "anna:0.8", "anna:te=0.5:unet=0.9", "anna:-1:1"])
def test_a_tag_that_works_is_not_talked_about(notes, tag):
    assert notes(tag) == []
    assert notes(tag, kind="lora") == []


def test_a_missing_file(notes):
    (sentence,) = notes("nobody:1", load=False)
    assert sentence.startswith('There is no LiDB "nobody" in the LoRA folder: check the name')


@pytest.mark.parametrize("tag", ["anna:abc", "anna:1:x", "anna:te=much", "anna:nan"])
def test_a_multiplier_that_is_no_number(notes, tag):
    (sentence,) = notes(tag, load=False)
    assert "is no number" in sentence and sentence.endswith("write <lidb:anna:0.8>.")


@pytest.mark.parametrize("kind", ["lidb", "lora"])
def test_a_file_for_another_architecture(notes, webui, kind):
    key = SMALL.layers[2].key
    webui.networks.linears[key] = nn.Linear(1024, 320)
    (sentence,) = notes("anna:1", load=False, kind=kind)
    assert 'was made for a model of another architecture "another"' in sentence
    # Some layers are missing altogether: the loader passes them over without a word.
    del webui.networks.linears[key]
    (sentence,) = notes("anna:1", kind=kind)
    assert "another architecture" in sentence


def test_another_file_of_the_same_inner_name_confuses_nobody(notes, webui, small_lidb):
    export_lora(webui.lora_dir / "zoey.safetensors", small_lidb, Info(name="anna"))
    content = (webui.lora_dir / "zoey.safetensors").read_bytes()
    # As older exports did.
    renamed = content.replace(b'"ss_output_name":"zoey"', b'"ss_output_name":"anna"')
    assert renamed != content
    (webui.lora_dir / "zoey.safetensors").write_bytes(renamed)
    webui.networks.list_available_networks()
    webui.networks.linears[SMALL.layers[2].key] = nn.Linear(1024, 320)
    (sentence,) = notes("anna:1", load=False)
    assert "another architecture" in sentence


def test_a_damaged_file(notes, webui):
    path = webui.lora_dir / "anna.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    (sentence,) = notes("anna:1", load=False)
    assert "anna.safetensors is damaged" in sentence


def test_without_the_built_in_lora(notes, webui):
    webui.extra_networks.extra_network_registry.clear()
    assert notes("anna:1", load=False) == [webui.ours("host").why_missing()]


def test_the_script_says_it_under_the_image(notes, webui):
    entry = webui.ours("entry")
    said = []
    p = SimpleNamespace(comment=said.append, sd_model=None)
    data = {"lidb": [webui.extra_networks.ExtraNetworkParams(["nobody", "1"])]}
    entry.TagNotes().after_extra_networks_activate(p, batch_number=0, extra_network_data=data)
    assert len(said) == 1 and "nobody" in said[0]
    assert entry.TagNotes().show(False) is webui.scripts.AlwaysVisible


@pytest.mark.parametrize("place", ["all_prompts", "all_hr_prompts"])
def test_a_tag_that_cannot_be_read_is_told_and_taken_out_before_the_loader_stumbles_over_it(webui, place):
    said, prompts = [], ["a <lidb:anna:abc>face <lora:x:abc>", "<lidb:anna:0.8> <lidb:bert:nan> a <lidb:bert> face"]
    p = SimpleNamespace(**{"all_prompts": [], place: prompts}, comment=said.append)
    webui.ours("entry").TagNotes().process(p)
    assert prompts == ["a face <lora:x:abc>", "<lidb:anna:0.8>  a <lidb:bert> face"]
    assert [sentence.partition(" is no number")[0] for sentence in said] == [
        'The multiplier "abc" of <lidb:anna:…>', 'The multiplier "nan" of <lidb:bert:…>',
    ]  # fmt: skip


def test_in_forge_a_missing_file_is_told_and_nothing_is_said_about_its_own_merging(notes, webui, monkeypatch):
    monkeypatch.delattr(webui.networks, "module_types")
    tag_notes, params = webui.ours("notes").tag_notes, webui.extra_networks.ExtraNetworkParams
    data = {"lidb": [params(["anna", "1"]), params(["nobody", "1"])]}
    (sentence,) = tag_notes(webui.networks, "", data, dict)
    assert "nobody" in sentence
