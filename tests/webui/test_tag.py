"""The tag: our files through the WebUI's loader, with the weights that the exported LoRA has."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hyperdreambooth_ext.errors import ArchitectureError
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.file import Info
from hyperdreambooth_ext.lidb.lora import export_lora
from tests.conftest import SMALL, random_lidb


@pytest.fixture
def lora(webui, small_lidb):
    """The fake's networks with the layers of a small model, a LiDB "anna" and its export "anna_lora"."""
    file.save(webui.lora_dir / "anna.safetensors", small_lidb, Info(name="anna"))
    export_lora(webui.lora_dir / "anna_lora.safetensors", small_lidb, Info(name="anna_lora"))
    webui.networks.linears.update(modules_of(SMALL))
    webui.networks.list_available_networks()
    webui.ours("tag").register_tag(webui.networks)
    return webui.networks


def modules_of(architecture):
    return {layer.key: nn.Linear(layer.in_features, layer.out_features) for layer in architecture.layers}


def loaded(networks, name):
    return networks.load_network(name, networks.available_networks[name])


def factors(module):
    return module.up_model.weight, module.down_model.weight


def test_a_lidb_gives_the_same_tensors_as_its_exported_lora(lora):
    ours, exported = loaded(lora, "anna").modules, loaded(lora, "anna_lora").modules
    assert ours.keys() == exported.keys() and len(ours) == len(SMALL)
    for key, module in ours.items():
        assert module.alpha == exported[key].alpha == 2
        for one, other in zip(factors(module), factors(exported[key]), strict=True):
            # The file rounds A_train and B_train; the export of what it holds is the same to the bit (next test).
            assert torch.allclose(one, other, rtol=0.02, atol=0.01)


def test_exporting_the_file_gives_the_very_bits_that_the_tag_uses(lora, webui):
    export_lora(webui.lora_dir / "again.safetensors", *file.load(webui.lora_dir / "anna.safetensors"))
    lora.list_available_networks()
    ours, exported = loaded(lora, "anna").modules, loaded(lora, "again").modules
    for key, module in ours.items():
        assert all(torch.equal(one, other) for one, other in zip(factors(module), factors(exported[key]), strict=True))
        hidden_states = torch.randn(3, module.down_model.weight.shape[1])
        assert torch.equal(module.down_model(hidden_states), exported[key].down_model(hidden_states))


def test_the_tag_is_loras_own_after_as_many_reloads_as_one_likes(lora, webui):
    for _ in range(3):
        webui.extra_networks.extra_network_aliases.clear()
        webui.ours("tag").register_tag(lora)
    assert webui.extra_networks.extra_network_aliases == {"lidb": webui.extra_networks.extra_network_registry["lora"]}
    assert [type(kind).__name__ for kind in lora.module_types].count("ModuleTypeLidb") == 1


def test_a_file_for_other_shapes_is_not_loaded_at_all(lora):
    lora.linears[SMALL.layers[2].key] = nn.Linear(1024, 320)
    with pytest.raises(ArchitectureError, match="another shape"):
        loaded(lora, "anna")


def test_a_new_file_of_the_same_name_takes_effect_at_once(lora, webui):
    """Retraining: the layer that compares only names must not keep the old weights."""
    model = nn.ModuleDict({str(i): linear for i, linear in enumerate(lora.linears.values())})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    net = loaded(lora, "anna")
    lora.networks_in_memory["anna"] = net
    lora.merge(net)
    merged = {key: value.clone() for key, value in model.state_dict().items()}
    assert any(not torch.equal(before[key], merged[key]) for key in before)
    path = webui.lora_dir / "anna.safetensors"
    file.save(path, random_lidb(SMALL, rank=2, seed=5), Info(name="anna"))
    webui.ours("builtin_lora").forget(lora, path, [model])
    assert not lora.networks_in_memory and not lora.loaded_networks
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    lora.merge(loaded(lora, "anna"))
    assert any(not torch.equal(merged[key], value) for key, value in model.state_dict().items())


def test_another_files_weights_are_forgotten_by_nobody(lora, webui):
    model = nn.ModuleDict({str(i): linear for i, linear in enumerate(lora.linears.values())})
    net = loaded(lora, "anna_lora")
    lora.merge(net)
    merged = {key: value.clone() for key, value in model.state_dict().items()}
    webui.ours("builtin_lora").forget(lora, webui.lora_dir / "anna.safetensors", [model])
    assert all(torch.equal(merged[key], value) for key, value in model.state_dict().items())
    assert lora.loaded_networks == [net] and {"anna", "anna_lora"} <= lora.available_networks.keys()


def test_without_the_built_in_lora_the_user_is_told(webui):
    webui.extra_networks.extra_network_registry.clear()
    assert webui.ours("host").find_networks() is None
    assert "switch it on under Extensions" in webui.ours("host").why_missing()


def test_forges_loader_is_handed_the_exported_lora(webui, small_lidb, monkeypatch):
    """Forge has no module types; its loader takes a table of tensors by file name."""
    monkeypatch.delattr(webui.networks, "module_types")
    theirs = webui.networks.load_lora_state_dict = lambda filename: {"theirs": filename}
    lidb_path, lora_path = webui.lora_dir / "anna.safetensors", webui.lora_dir / "anna_lora.safetensors"
    file.save(lidb_path, small_lidb, Info(name="anna"))
    export_lora(lora_path, *file.load(lidb_path))
    for _ in range(2):
        webui.ours("entry")._on_app_started(None, None)
    tensors = webui.networks.load_lora_state_dict(str(lidb_path))
    exported = load_file(lora_path)
    assert tensors.keys() == exported.keys() and all(torch.equal(tensors[key], exported[key]) for key in tensors)
    assert webui.networks.load_lora_state_dict(str(lora_path)) == theirs(str(lora_path))
    assert "lidb" in webui.extra_networks.extra_network_aliases and webui.ours("host").why_missing() == ""


def test_a_loader_without_module_types_is_another_programs(webui, monkeypatch):
    monkeypatch.delattr(webui.networks, "module_types")
    assert webui.ours("host").find_networks() is None
    assert "export the LiDB as a LoRA" in webui.ours("host").why_missing()


def test_a_lidb_of_sd15s_shapes_is_loaded_whole(webui, sd15):
    """What that takes in time is measured by `run.py tag`."""
    file.save(webui.lora_dir / "big.safetensors", random_lidb(sd15, rank=2), Info(name="big"))
    with torch.device("meta"):
        webui.networks.linears.update(modules_of(sd15))
    webui.networks.list_available_networks()
    webui.ours("tag").register_tag(webui.networks)
    assert loaded(webui.networks, "big").modules.keys() == {layer.key for layer in sd15.layers}
