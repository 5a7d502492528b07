"""Dependencies point one way: import-linter reads them, and the lower floors load without what they must not need."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOWER_FLOORS = """
import sys
for name in ("modules", "gradio", "fastapi", "uvicorn", "diffusers", "peft", "accelerate", "webdataset", "ldm"):
    sys.modules[name] = None
import hyperdreambooth_ext.lidb.lora, hyperdreambooth_ext.images.sheet, hyperdreambooth_ext.hosts.ldm
import hyperdreambooth_ext.hypernet.training, hyperdreambooth_ext.personalize.personalize
import hyperdreambooth_ext.pretrain.build, hyperdreambooth_ext.jobs.jobs
"""


def test_the_contracts_in_pyproject_are_kept(monkeypatch, capsys):
    cli = pytest.importorskip("importlinter.cli", reason="import-linter is not installed: pip install import-linter")
    monkeypatch.chdir(ROOT)
    code = cli.lint_imports("pyproject.toml", no_cache=True)
    assert code == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_the_lower_floors_load_without_a_webui_a_web_framework_and_what_is_optional():
    subprocess.run([sys.executable, "-c", LOWER_FLOORS], check=True, cwd=ROOT)
