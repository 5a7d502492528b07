"""`pip install .` takes every module and every file that a module reads: setuptools' own list, made without network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hyperdreambooth_ext"


@pytest.fixture
def distribution(monkeypatch):
    """What setuptools makes of the project."""
    from setuptools import Distribution

    monkeypatch.chdir(ROOT)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files()
    return distribution


@pytest.fixture
def installed(distribution) -> set[Path]:
    """The files of the package that it would install."""
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    modules = {Path(file) for _, _, file in build.find_all_modules()}
    return modules | {Path(source, name) for _, source, _, names in build.data_files for name in names}


def test_every_file_of_the_package_is_installed(installed):
    there = {
        Path(folder, name).relative_to(ROOT)
        for folder, _, names in os.walk(PACKAGE)
        for name in names
        if "__pycache__" not in folder
    }
    assert {file.suffix for file in there} > {".py"}, "modules read other files"
    assert installed == there


def test_the_models_the_script_and_the_style_are_installed_beside_it(distribution):
    there = {Path(name) for _, names in distribution.data_files for name in names}
    beside = {file.relative_to(ROOT) for file in (ROOT / "models").iterdir() if file.is_file()}
    beside |= {file.relative_to(ROOT) for file in (ROOT / "models" / "clip").iterdir()}
    assert there == beside | {Path("style.css"), Path("javascript/hyperdreambooth.js")}
    assert all(Path(folder).parts[:2] == ("share", "hyperdreambooth_ext") for folder, _ in distribution.data_files)


def test_an_installed_package_finds_them(tmp_path):
    package, share = tmp_path / "lib" / "hyperdreambooth_ext", tmp_path / "share" / "hyperdreambooth_ext"
    package.mkdir(parents=True)
    for name in ("__init__.py", "shipped.py"):
        shutil.copy(PACKAGE / name, package)
    facts = tmp_path / "lib" / "hyperdreambooth_ext-0.2.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: hyperdreambooth-ext\nVersion: 0.2.0\n")
    (facts / "RECORD").write_text("hyperdreambooth_ext/__init__.py,,\n../share/hyperdreambooth_ext/style.css,,\n")
    code = "from hyperdreambooth_ext.shipped import MODELS; print(MODELS)"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "lib", env={**os.environ, "PYTHONPATH": ""}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert Path(shown.stdout.strip()) == share / "models"
