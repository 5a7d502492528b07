"""`pip install .` takes every module and every file that a module reads: setuptools' own list, made without network."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hyperdreambooth_ext"


@pytest.fixture
def installed(monkeypatch) -> set[Path]:
    """The files of the package that setuptools would install."""
    from setuptools import Distribution

    monkeypatch.chdir(ROOT)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files()
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
