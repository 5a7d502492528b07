"""One list of options: the command line, the tab, the API and the document are made from it."""

import math
from argparse import ArgumentParser
from dataclasses import fields

import pytest

from hyperdreambooth_ext.api.models import PersonalizeRequest
from hyperdreambooth_ext.cli.cli import main
from hyperdreambooth_ext.cli.options import add_options, given
from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.personalize.options import EVERYWHERE, PRESETS, PersonalizeOptions, check, options_of
from tests.options_table import PAGE, page

OPTIONS = options_of(PersonalizeOptions)
LIMITED = [option for option in OPTIONS.values() if option.low is not None]


def parsed(*arguments: str) -> PersonalizeOptions:
    parser = ArgumentParser()
    add_options(parser, options_of(PersonalizeOptions, "cli").values())
    return given(parser.parse_args(arguments), PersonalizeOptions)


def test_every_field_is_an_option_that_some_interface_shows():
    assert [field.name for field in fields(PersonalizeOptions)] == list(OPTIONS)
    assert all(option.shown and set(option.shown) <= set(EVERYWHERE) for option in OPTIONS.values())
    assert all(option.help.endswith(".") and option.label for option in OPTIONS.values())
    check(PersonalizeOptions())


@pytest.mark.parametrize("option", LIMITED, ids=lambda option: option.name)
def test_the_ends_of_a_range_are_taken_and_what_lies_beyond_is_refused(option):
    step = option.multiple or 1
    for value in (option.low, option.high):
        option.check(value)
    for value in (option.low - step, option.high + step, math.nan):
        with pytest.raises(UserError, match=f"{option.label}: at (least|most)"):
            option.check(value)


def test_nothing_given_is_what_the_options_say():
    assert parsed() == PersonalizeOptions()
    given_by_name = parsed("--steps", "7", "--no-thumbnail", "--low-memory", "--start", "zero", "--quality", "best")
    assert given_by_name == PersonalizeOptions(
        steps=7, thumbnail=False, low_memory=True, start="zero", quality="best"
    )  # fmt: skip


def test_the_api_takes_the_same_defaults():
    request = PersonalizeRequest(photo="", name="anna")
    assert PersonalizeOptions(**request.options()) == PersonalizeOptions()
    assert request.options().keys() == options_of(PersonalizeOptions, "api").keys()


def test_the_schema_tells_ranges_and_choices():
    schema = getattr(PersonalizeRequest, "model_json_schema", PersonalizeRequest.schema)()
    seed = schema["properties"]["seed"]
    assert (seed["minimum"], seed["maximum"]) == (OPTIONS["seed"].low, OPTIONS["seed"].high)
    assert "multipleOf" in str(schema["properties"]["size"]) and "balanced" in str(schema)


def test_a_change_beside_the_quality():
    finetune = PersonalizeOptions(quality="best", steps=7, low_memory=True).finetune()
    assert (finetune.steps, finetune.rank, finetune.micro_batch_size) == (7, PRESETS["best"].rank, 1)


def test_the_command_line_names_the_flag(tmp_path, capsys):
    assert main(["personalize", "none.jpg", "--name", "anna", "--out", str(tmp_path), "--rank", "65"]) == 1
    assert "Rank: at most 64 (--rank)." in capsys.readouterr().err


def test_the_document_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "python -m tests.options_table writes it anew"
