"""install.py moves nothing: it installs timm where that is missing, alone, and says so when it cannot."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("PIP_RETRIES", "5")
    monkeypatch.setenv("PIP_TIMEOUT", "15")
    return module


def without(script, monkeypatch, *names):
    gone = set(names)
    monkeypatch.setattr(script, "find_spec", lambda module: None if module in gone else object())
    return gone


def test_where_nothing_is_missing_nothing_is_installed_or_said(script, monkeypatch, capsys):
    without(script, monkeypatch)
    script.install(lambda *arguments: pytest.fail(str(arguments)))
    assert capsys.readouterr().out == ""


def test_timm_is_installed_alone_and_once(script, monkeypatch, capsys):
    gone, commands = without(script, monkeypatch, "timm"), []

    def run_pip(command, desc):
        commands.append(command)
        gone.clear()

    for _ in range(2):
        script.install(run_pip)
    assert commands == ["install --no-deps timm"] and capsys.readouterr().out == ""


def test_offline_it_says_what_is_missing(script, monkeypatch, capsys):
    without(script, monkeypatch, "timm")

    def run_pip(command, desc):
        raise RuntimeError("no network")

    script.install(run_pip)
    said = capsys.readouterr().out
    assert "could not install timm" in said and "needs timm: install it" in said


def test_anything_else_is_only_told_and_open_clip_is_not_asked_for(script, monkeypatch, capsys):
    without(script, monkeypatch, "cv2", "open_clip")
    script.install(lambda *arguments: pytest.fail(str(arguments)))
    said = capsys.readouterr().out
    assert said.startswith("HyperDreamBooth needs opencv-python-headless: install it") and "open" not in said[40:]


def test_the_webuis_launcher_is_the_one_that_is_asked(tmp_path):
    (tmp_path / "launch.py").write_text("def run_pip(command, desc): print(command)", encoding="utf-8")
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'timm' else find(name, package)\n",
        encoding="utf-8",
    )
    command = [sys.executable, str(ROOT / "install.py")]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "install --no-deps timm"
