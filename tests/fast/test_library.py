"""The LiDBs in a folder: found, exported, renamed with what lies beside them, deleted and brought back."""

import pytest
import torch
from safetensors import safe_open

from hyperdreambooth_ext.errors import FileError, UserError
from hyperdreambooth_ext.jobs.library import delete, entries, export, find, forget_deleted, rename, undelete
from hyperdreambooth_ext.lidb import file


@pytest.fixture
def folder(tmp_path, small_lidb):
    file.save(tmp_path / "friends" / "anna.safetensors", small_lidb, file.Info(name="anna", thumbnail=b"jpeg"))
    (tmp_path / "friends" / "anna.json").write_text("{}")
    (tmp_path / "friends" / "anna.preview.png").write_bytes(b"png")
    return tmp_path


def names(folder):
    return [entry.name for entry in entries(folder)]


def test_a_lidb_in_a_subfolder_is_found_and_exported_with_its_picture(folder):
    path = export(folder, "anna")
    assert path == folder / "friends" / "anna_lora.safetensors"
    with safe_open(path, "pt") as opened:
        assert "ssmd_cover_images" in opened.metadata(), "for its card"
    with pytest.raises(FileError, match="no LiDB named"):
        find(folder, "bea")


def test_a_new_name_stands_in_the_file_too_and_takes_its_notes_along(folder):
    before = file.load(folder / "friends" / "anna.safetensors")[0]
    path = rename(folder, "anna", " Bea ")
    lidb, info = file.load(path)
    assert info.name == "Bea"
    assert all(torch.equal(a, b) for a, b in zip(before.parameters, lidb.parameters, strict=True))
    assert sorted(each.name for each in path.parent.iterdir()) == ["Bea.json", "Bea.preview.png", "Bea.safetensors"]
    with pytest.raises(UserError):
        rename(folder, "Bea", "a/b")


def test_a_name_that_is_taken_is_no_new_name(folder, small_lidb):
    file.save(folder / "friends" / "bea.safetensors", small_lidb, file.Info(name="bea"))
    with pytest.raises(FileError, match="exists already"):
        rename(folder, "anna", "bea")
    assert names(folder) == ["anna", "bea"]


def test_what_was_deleted_comes_back_until_another_is(folder, small_lidb):
    delete(folder, "anna")
    assert names(folder) == []
    assert undelete(folder).stem == "anna" and names(folder) == ["anna"]
    file.save(folder / "bea.safetensors", small_lidb, file.Info(name="bea"))
    delete(folder, "anna")
    delete(folder, "bea")
    assert undelete(folder).stem == "bea"
    with pytest.raises(FileError, match="gone for good"):
        undelete(folder)


def test_nothing_deleted_outlives_the_program(folder):
    delete(folder, "anna")
    forget_deleted(folder)
    assert not list(folder.rglob("*.deleted"))


def test_a_deleted_one_does_not_replace_whoever_has_the_name_by_now(folder, small_lidb):
    delete(folder, "anna")
    file.save(folder / "friends" / "anna.safetensors", small_lidb, file.Info(name="anna", trigger="new"))
    with pytest.raises(FileError, match="by now"):
        undelete(folder)
    assert entries(folder)[0].info.trigger == "new"
