"""The prompt tag, in every form that the WebUI takes for LoRAs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.lidb.tags import Tag, parse_prompt


@pytest.mark.parametrize(
    ("prompt", "text", "tags"),
    [
        ("a sks face <lidb:anna:0.8>", "a sks face", [Tag("anna", 0.8, 0.8)]),
        ("<lidb:anna> a face", "a face", [Tag("anna")]),
        ("a <lidb:anna:0.5:0.9> face", "a face", [Tag("anna", unet=0.9, text=0.5)]),
        ("a face <lidb:anna:te=0.5:unet=0.9>", "a face", [Tag("anna", unet=0.9, text=0.5)]),
        ("a face <lidb:anna:unet=0.9>", "a face", [Tag("anna", unet=0.9, text=1.0)]),
        ("<lidb:a:0.4> two <lidb:b:-1>", "two", [Tag("a", 0.4, 0.4), Tag("b", -1.0, -1.0)]),
        ("a face <lora:x:1>", "a face <lora:x:1>", []),
        ("no tag", "no tag", []),
    ],
)
def test_tags_are_taken_out_and_understood(prompt, text, tags):
    assert parse_prompt(prompt) == (text, tags)


@pytest.mark.parametrize("multiplier", ["much", "", "nan", "inf", "1,5"])
def test_a_multiplier_that_is_no_number_is_said(multiplier):
    with pytest.raises(UserError, match="is no number: write <lidb:anna:0.8>"):
        parse_prompt(f"a face <lidb:anna:{multiplier}>")


@given(name=st.from_regex(r"[A-Za-z0-9_\-. ]{1,20}", fullmatch=True), value=st.floats(-3, 3))
def test_any_written_tag_is_read_back(name, value):
    assert parse_prompt(f"x <lidb:{name}:{value!r}>")[1] == [Tag(name.strip(), value, value)]
