"""The faked WebUI against real ones: every name, signature and class attribute that the fake has, the real one has.

The real ones' are recorded in `facts/` (see `record.py`), so that nothing but these files is needed. With WEBUI_ROOT
the records themselves are held against that WebUI 1.10.
"""

import json
import os
from pathlib import Path

import pytest

from .record import FACTS, Definition, fake_definitions, record

FAKE = {name: definition for _, name, definition in fake_definitions()}
REAL = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FACTS.glob("*.json"))}
FAKED = "automatic1111-1.10.1"
# What loads models differs: each program is held to the fake of its own kind (`fake/forge`, `fake/classic`).
KINDS = {"forge:": ("forge", "forge-neo"), "classic:": ("reforge", "forge-classic")}
# What our code looks for before it uses it, since these programs do not have it.
_A1111_ONLY = {
    "network_lora.ModuleTypeLora", "network_lora.NetworkModuleLora", "networks.module_types",
    "sd_hijack.undo_optimizations", "sd_hijack_optimizations.scaled_dot_product_attention_forward",
    "lora/networks.py: for nettype in module_types", 'lora/networks.py: getattr(self, "network_current_names", ())',
}  # fmt: skip
_FORGE = {
    "modules/sd_models.py: def forge_model_reload(", "modules/sd_models.py: if model_data.forge_hash == current_hash",
    "modules/sd_models.py:  memory_management.unload_all_models()",
}  # fmt: skip
_CLASSIC = {
    "modules/sd_models.py:  model_management.unload_all_models()",
    "modules/sd_models.py: if self.was_loaded_at_least_once:",
}
# By which callbacks are registered where `add_callback` takes no names.
_PAIR = {'modules/script_callbacks.py: ScriptCallback = namedtuple("ScriptCallback", ["script", "callback"])'}
_NO_LOWVRAM = {
    "lowvram.module_in_gpu", "lowvram.send_everything_to_cpu", "shared.loaded_hypernetworks",
    "modules/sd_hijack_optimizations.py: shared.loaded_hypernetworks",
    "modules/sd_models.py: alphas_cumprod_original",
}  # fmt: skip
LACKING = {
    FAKED: _FORGE | _PAIR | (_CLASSIC - {"modules/sd_models.py: if self.was_loaded_at_least_once:"}) | {
        "lora/networks.py: load_lora_state_dict(filename)",
        "lora/networks.py: if current_sd.current_lora_hash == compiled_lora_targets_hash:",
        "modules/sd_models.py: management.soft_empty_cache(",
        "ldm_patched/model_management.py: def unload_all_models():",
        "modules_forge/main_thread.py: finished_list.append(task)",
    },
    "forge": _A1111_ONLY | _CLASSIC | _PAIR | {
        "network.NetworkWeights", "networks.network_apply_weights", "sd_hijack.sgm",
        "modules/sd_models.py: loaded_sd_models", "ldm_patched/model_management.py: def unload_all_models():",
    },
    "reforge": _A1111_ONLY | _FORGE | _PAIR | {
        "sd_hijack.sgm", "modules/sd_models.py:  model_management.unload_all_models()",
    },
    "forge-classic": _A1111_ONLY | _FORGE | _NO_LOWVRAM | {
        "networks.network_apply_weights", "networks.update_available_networks_by_names",
    },
}  # fmt: skip
LACKING["forge-neo"] = LACKING["forge"] | _NO_LOWVRAM | {
    "networks.networks_in_memory", "sd_models.reload_model_weights", "sd_vae.resolve_vae",
    "modules/sd_models.py: if isinstance(v, str) and v[0:1] == '{':",
    "modules_forge/main_thread.py: finished_list.append(task)",
}  # fmt: skip
# Nor these members of classes that they have, and these arguments of functions.
OTHERWISE = {
    "forge-neo": {
        "devices.autocast", "network.Network.dyn_dim", "network.Network.modules", "network.NetworkOnDisk.sd_version",
        "forge:sd_models.FakeInitialModel.__init__",
    },
    "reforge": {"classic:sd_models.load_model"},
    "forge-classic": {"script_callbacks.add_callback", "ui_extra_networks.ExtraNetworksPage.find_embedded_preview"},
}  # fmt: skip


def held(program: str) -> dict[str, Definition | None]:
    """The recorded names that the program is held to."""
    others = tuple(kind for kind, programs in KINDS.items() if program not in programs)
    return {name: one for name, one in REAL[program]["names"].items() if not name.startswith(others)}


def differences(name: str, fake: Definition, real: Definition) -> set[str]:
    """What of the fake's definition the real one has not, or has with other arguments."""
    if "arguments" in fake and "arguments" in real:
        return set() if fake["arguments"] == real["arguments"] else {name}
    if "members" not in fake or "members" not in real:
        return set()
    wrong = set()
    for member, arguments in fake["members"].items():
        theirs = real["members"].get(member)
        absent = member not in real["members"] and not real["inherits"]
        if absent or (arguments is not None and theirs is not None and arguments != theirs):
            wrong.add(f"{name}.{member}")
    return wrong


@pytest.mark.parametrize("program", REAL)
def test_what_the_fake_has_is_recorded(program):
    assert REAL[program]["names"].keys() == FAKE.keys(), "the fake has changed: run tests.webui.record again"


@pytest.mark.parametrize("program", REAL)
def test_a_real_webui_has_what_the_fake_has_with_the_same_signatures(program):
    wrong: set[str] = set()
    for name, definition in held(program).items():
        if definition is not None:
            wrong |= differences(name, FAKE[name], definition)
    assert wrong == OTHERWISE.get(program, set())


@pytest.mark.parametrize("program", REAL)
def test_what_a_real_webui_lacks_is_known(program):
    lacking = {name for name, definition in held(program).items() if definition is None}
    assert lacking | {line for line, there in REAL[program]["lines"].items() if not there} == LACKING[program]


@pytest.mark.webui_real
def test_the_records_are_those_of_this_webui():
    assert record(Path(os.environ["WEBUI_ROOT"])) == REAL[FAKED]
