"""Names that can stand in a tag and on any disk, and writing that is all or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdreambooth_ext.errors import FileError, UserError
from hyperdreambooth_ext.files import checked_name, write_atomically

BAD = ["", "   ", "a:b", "a>b", "a<b", "a/b", "a\\b", "..", "../x", ".hidden", "con", "COM1.x", "a\nb", "end.", "a,b"]


@pytest.mark.parametrize("name", [*BAD, "x" * 101])
def test_bad_names_are_refused_with_a_sentence(name):
    with pytest.raises(UserError, match=r"[.]$"):
        checked_name(name)


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
