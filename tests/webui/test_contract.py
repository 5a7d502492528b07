"""The faked WebUI against a real one: every name, signature and class attribute that the fake has, the real one has.

Read from the sources, so that nothing of the WebUI is started. WEBUI_ROOT names the folder of a WebUI 1.10.
"""

import ast
import os
from pathlib import Path

import pytest

from .conftest import FAKE

ROOT = os.environ.get("WEBUI_ROOT")
pytestmark = pytest.mark.skipif(not ROOT, reason="WEBUI_ROOT does not name a WebUI: the fake cannot be held against it")
FAKE_ONLY = "# fake only"
# Where the WebUI defines what the fake defines in one place.
ELSEWHERE = {
    ("shared", "OptionInfo"): "modules/options.py",
    ("shared", "Options"): "modules/options.py",
    ("shared", "State"): "modules/shared_state.py",
}


def real_file(fake: Path) -> Path:
    folder = {"modules": "modules", "lora": "extensions-builtin/Lora"}[fake.parent.name]
    return Path(ROOT) / folder / fake.name


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


def members(node: ast.ClassDef) -> dict[str, ast.AST]:
    """Methods, and attributes that the class or its __init__ binds."""
    found: dict[str, ast.AST] = {}
    for child in node.body:
        if isinstance(child, ast.FunctionDef):
            found[child.name] = child
        elif isinstance(child, ast.Assign | ast.AnnAssign):
            target = child.targets[0] if isinstance(child, ast.Assign) else child.target
            found[target.id] = child
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name) and child.value.id == "self":
            found.setdefault(child.attr, child)
    return found


def arguments(node: ast.FunctionDef) -> list[str]:
    spec = node.args
    return [argument.arg for argument in [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]]


def cases():
    for fake in sorted(FAKE.rglob("*.py")):
        if fake.name == "__init__.py":
            continue
        lines = fake.read_text(encoding="utf-8").splitlines()
        for name, node in top_level(fake).items():
            own = not isinstance(node, ast.Import | ast.ImportFrom) and FAKE_ONLY not in lines[node.lineno - 1]
            if own and not name.startswith("_"):
                yield pytest.param(fake, name, node, id=f"{fake.stem}.{name}")


@pytest.mark.parametrize(("fake", "name", "node"), cases())
def test_the_real_webui_has_it_with_the_same_signature(fake, name, node):
    elsewhere = ELSEWHERE.get((fake.stem, name))
    real = top_level(Path(ROOT) / elsewhere if elsewhere else real_file(fake)).get(name)
    assert real is not None, f"{fake.stem}.{name} is not in the real WebUI"
    if isinstance(node, ast.FunctionDef) and isinstance(real, ast.FunctionDef):
        assert arguments(node) == arguments(real)
    if isinstance(node, ast.ClassDef) and isinstance(real, ast.ClassDef):
        has = members(real)
        for member, definition in members(node).items():
            if member.startswith("__") and member != "__init__":
                continue
            assert member in has or real.bases, f"{name}.{member} is not in the real WebUI"
            theirs = has.get(member)
            if isinstance(definition, ast.FunctionDef) and isinstance(theirs, ast.FunctionDef):
                assert arguments(definition) == arguments(theirs)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        # What our code counts on beyond names.
        *(
            ("modules/script_callbacks.py", f"callbacks_{kind}=[]")
            for kind in ("before_ui", "ui_settings", "ui_tabs", "infotext_pasted", "app_started")
        ),
        ("modules/fifo_lock.py", "self._pending_threads.append(release_event)"),
        ("modules/extra_networks.py", "for extra_network, extra_network_args in lookup_extra_networks"),
        ("modules/extra_networks.py", "p.scripts.after_extra_networks_activate("),
        ("extensions-builtin/Lora/networks.py", 'getattr(self, "network_current_names", ())'),
        ("extensions-builtin/Lora/networks.py", "for nettype in module_types"),
        ("extensions-builtin/Lora/extra_networks_lora.py", "import networks"),
        ("modules/shared_options.py", '"sd_unet"'),
        ("modules/sd_hijack_optimizations.py", "shared.loaded_hypernetworks"),
        ("modules/sd_models.py", "alphas_cumprod_original"),
        ("modules/sd_models.py", "if isinstance(v, str) and v[0:1] == '{':"),
        ("modules/sd_models.py", "loaded_sd_models"),
        ("modules/processing.py", "cached_hr_uc = [None, None]"),
        ("modules/api/api.py", 'shared.cmd_opts.api_auth.split(",")'),
    ],
)
def test_the_real_webui_works_as_we_count_on(file, text):
    assert text in (Path(ROOT) / file).read_text(encoding="utf-8")
