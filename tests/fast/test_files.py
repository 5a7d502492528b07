"""Names that can stand in a tag and on any disk, and writing that is all or nothing."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdreambooth_ext.errors import FileError, UserError
from hyperdreambooth_ext.files import checked_name, write_atomically
from hyperdreambooth_ext.temporary import SUFFIX, remove_leftovers, temporary_beside

BAD = ["", "   ", "a:b", "a>b", "a<b", "a/b", "a\\b", "..", "../x", ".hidden", "con", "COM1.x", "a\nb", "end.", "a,b"]


@pytest.mark.parametrize("name", [*BAD, "x" * 101])
def test_bad_names_are_refused_with_a_sentence(name):
    with pytest.raises(UserError, match=r"[.]$"):
        checked_name(name)


@pytest.mark.parametrize(("letter", "fitting"), [("x", 100), ("ü", 50), ("日", 33)])
def test_a_name_that_is_too_long_is_told_how_much_of_it_fits(letter, fitting):
    with pytest.raises(UserError, match=f"at most {fitting} characters of it fit"):
        checked_name(letter * 150)
    assert checked_name(letter * fitting)


@pytest.mark.parametrize("name", ["anna", "Anna Müller", "anna-2_b", "日本"])
def test_good_names_are_kept(name):
    assert checked_name(f" {name} ") == name


@given(st.text(max_size=30))
def test_an_accepted_name_is_one_path_component_and_one_tag_argument(name):
    try:
        accepted = checked_name(name)
    except UserError:
        return
    assert accepted and not set(accepted) & set('<>:"/\\|?*,') and accepted not in (".", "..")


def test_a_write_that_fails_its_check_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def refuse(_):
        raise FileError("not good.")

    with pytest.raises(FileError, match="not good"):
        write_atomically(path, b"new", verify=refuse)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(FileError, match="cannot be written"):
        write_atomically(tmp_path / "x" / "y", b"new")


WINDOWS = [
    "CON", "prn.txt", "aux.tar.gz", "nul ", "NUL .x", "com0", "COM9.safetensors", "LPT1", "com\u00b9", "lpt\u00b3.x",
    "CONIN$", "conout$.x", "a.", "a<b", "a|b", "a?", "a*", 'a"b',
]  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
def test_what_windows_takes_for_a_device_or_cannot_store_is_refused_everywhere(name):
    with pytest.raises(UserError, match=r"[.]$"):
        checked_name(name)


@pytest.mark.parametrize("name", ["a\u202egnp.exe", "a\u2066b", "\ud800", "a\x7fb", "a\u2028b", "a\x85b"])
def test_names_that_look_like_others_or_have_no_bytes_are_refused(name):
    with pytest.raises(UserError, match=r"[.]$"):
        checked_name(name)


def test_a_name_is_one_whatever_way_its_accents_were_typed():
    assert checked_name("Mu\u0308ller") == "Müller" == checked_name("Müller")


def test_console_and_common_are_no_devices():
    assert checked_name("console") == "console" and checked_name("common.1") == "common.1" and checked_name("nully")


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "x"
    write_atomically(path, b"mine", overwrite=False)
    with pytest.raises(FileError, match="exists already"):
        write_atomically(path, b"other", overwrite=False)
    assert path.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [path]
    write_atomically(path, b"other")
    assert path.read_bytes() == b"other"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="exists already"):
        write_atomically(tmp_path / "x", b"new", overwrite=False)
    write_atomically(tmp_path / "x", b"new")
    assert (tmp_path / "elsewhere").read_bytes() == b"mine" and not (tmp_path / "x").is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="a file that is open cannot be deleted there")
def test_leftovers_of_a_dead_process_are_removed_and_what_is_being_written_is_not(tmp_path):
    (tmp_path / f".anna.safetensors.0123{SUFFIX}").write_bytes(b"half")
    (tmp_path / ".other.tmp").write_bytes(b"somebody else's")
    with temporary_beside(tmp_path / "b.safetensors") as (_, written):
        assert remove_leftovers(tmp_path) == 1
        assert written.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".other.tmp"]
    assert remove_leftovers(tmp_path / "none") == 0


def test_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    write_atomically(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode
