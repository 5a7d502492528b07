"""Writes down what the fake counts on in a real WebUI: names, signatures and a few lines, read from its source.

    python -m tests.webui.record WEBUI_ROOT NAME        writes tests/webui/facts/NAME.json

Nothing of the WebUI is started or imported. `test_contract.py` holds the fake against these files; record them anew for
a new version of a WebUI, or when the fake grows.
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FAKE, FACTS = HERE / "fake", HERE / "facts"
FAKE_ONLY = "# fake only"
# Where the fake's folders are in a WebUI; Forge has a LoRA extension of its own.
FOLDERS = {
    "modules": ("modules",), "lora": ("extensions-builtin/Lora", "extensions-builtin/sd_forge_lora"),
    "forge": ("modules",), "classic": ("modules",), "ldm_patched": ("ldm_patched/modules",),
    "modules_forge": ("modules_forge",),
}  # fmt: skip
# Where a WebUI defines what the fake defines in one place.
ELSEWHERE = {"shared.OptionInfo": "options", "shared.Options": "options", "shared.State": "shared_state"}
# Lines that our code counts on beyond names: file in the fake's folders, text.
LINES = (
    *(("modules/script_callbacks.py", f"callbacks_{kind}=[]") for kind in (
        "before_ui", "ui_settings", "ui_tabs", "infotext_pasted", "app_started")),
    ("modules/script_callbacks.py", 'ScriptCallback = namedtuple("ScriptCallback", ["script", "callback"])'),
    ("modules/fifo_lock.py", "self._pending_threads.append(release_event)"),
    ("modules/extra_networks.py", "for extra_network, extra_network_args in lookup_extra_networks"),
    ("modules/extra_networks.py", "p.scripts.after_extra_networks_activate("),
    ("lora/networks.py", 'getattr(self, "network_current_names", ())'),
    ("lora/networks.py", "for nettype in module_types"),
    ("lora/networks.py", "load_lora_state_dict(filename)"),
    ("lora/extra_networks_lora.py", "import networks"),
    ("modules/shared_options.py", '"sd_unet"'),
    ("modules/sd_hijack_optimizations.py", "shared.loaded_hypernetworks"),
    ("modules/sd_models.py", "alphas_cumprod_original"),
    ("modules/sd_models.py", "if isinstance(v, str) and v[0:1] == '{':"),
    ("modules/sd_models.py", "loaded_sd_models"),
    ("modules/sd_models.py", "def forge_model_reload("),
    ("modules/sd_models.py", "if model_data.forge_hash == current_hash"),
    ("modules/sd_models.py", " memory_management.unload_all_models()"),
    ("modules/sd_models.py", " model_management.unload_all_models()"),
    ("modules/sd_models.py", "management.soft_empty_cache("),
    ("ldm_patched/model_management.py", "def unload_all_models():"),
    ("modules_forge/main_thread.py", "finished_list.append(task)"),
    ("modules/sd_models.py", "if self.was_loaded_at_least_once:"),
    ("lora/networks.py", "if current_sd.current_lora_hash == compiled_lora_targets_hash:"),
    ("modules/processing.py", "cached_hr_uc = [None, None]"),
    ("modules/processing.py", "self.all_hr_prompts ="),
    ("modules/api/api.py", 'shared.cmd_opts.api_auth.split(",")'),
)  # fmt: skip

Signature = list[str]
Definition = dict[str, Any]


def top_level(path: Path) -> dict[str, ast.AST]:
    """name -> definition, of everything that a module binds, also within `if`; imports bind too."""
    found: dict[str, ast.AST] = {}
    todo = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while todo:
        node = todo.pop(0)
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0]: node for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.If):
            todo += node.body + node.orelse
    return found


def described(node: ast.AST) -> Definition:
    """A definition as JSON: a function's arguments, a class's members with theirs, or that it is a value."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return {"arguments": _arguments(node)}
    if isinstance(node, ast.ClassDef):
        return {"inherits": bool(node.bases), "members": _members(node)}
    return {}


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Signature:
    spec = node.args
    return [argument.arg for argument in [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]]


def _members(node: ast.ClassDef) -> dict[str, Signature | None]:
    """Methods with their arguments; None for attributes that the class or its __init__ binds."""
    found: dict[str, Signature | None] = {}
    for child in node.body:
        if isinstance(child, ast.FunctionDef):
            found[child.name] = _arguments(child)
        elif isinstance(child, ast.Assign | ast.AnnAssign):
            target = child.targets[0] if isinstance(child, ast.Assign) else child.target
            if isinstance(target, ast.Name):
                found[target.id] = None
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name) and child.value.id == "self":
            found.setdefault(child.attr, None)
    return {name: spec for name, spec in found.items() if name == "__init__" or not name.startswith("__")}


def fake_definitions() -> Iterator[tuple[str, str, Definition]]:
    """(folder, module.name, definition) of all that the fake has and a real WebUI must have."""
    for file in sorted(FAKE.rglob("*.py")):
        lines = file.read_text(encoding="utf-8").splitlines()
        for name, node in top_level(file).items() if file.name != "__init__.py" else ():
            imported = isinstance(node, ast.Import | ast.ImportFrom)
            if not imported and not name.startswith("_") and FAKE_ONLY not in lines[node.lineno - 1]:
                # Each kind of program has a fake of its own of how models are loaded.
                kind = f"{file.parent.name}:" if file.parent.name in ("forge", "classic") else ""
                yield file.parent.name, f"{kind}{file.stem}.{name}", described(node)


def _real_file(root: Path, folder: str, name: str) -> Path | None:
    there = (root / place / name for place in FOLDERS[folder])
    return next((path for path in there if path.is_file()), None)


def record(root: Path) -> dict[str, Any]:
    """Facts of the WebUI in `root`: for each of the fake's names its definition, or None where it lacks it."""
    names: dict[str, Definition | None] = {}
    for folder, name, fake in fake_definitions():
        module, _, attribute = name.rpartition(":")[2].partition(".")
        path = _real_file(root, folder, f"{ELSEWHERE.get(name, module)}.py")
        node = top_level(path).get(attribute) if path else None
        names[name] = None if node is None else _only_what_is_faked(described(node), fake)
    lines = {}
    for file, text in LINES:
        folder, _, name = file.partition("/")
        path = _real_file(root, folder, name)
        lines[f"{file}: {text}"] = path is not None and text in path.read_text(encoding="utf-8")
    return {"names": names, "lines": lines}


def _only_what_is_faked(real: Definition, fake: Definition) -> Definition:
    if "members" not in real or "members" not in fake:
        return real
    return real | {"members": {name: spec for name, spec in real["members"].items() if name in fake["members"]}}


def main(root: str, name: str) -> int:
    """Write the facts of the WebUI in the folder `root` as `name`."""
    FACTS.mkdir(exist_ok=True)
    file = FACTS / f"{name}.json"
    file.write_text(json.dumps(record(Path(root)), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(file)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
