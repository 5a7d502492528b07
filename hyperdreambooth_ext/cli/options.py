"""The options as flags of the command line."""

import argparse
from collections.abc import Iterable
from typing import TypeVar

from ..personalize.options import Option, check, options_of

Options = TypeVar("Options")


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    """One flag for each; what is not given is None."""
    for option in options:
        flag = "--" + option.name.replace("_", "-")
        if option.type is bool and option.default:
            off = flag.replace("--", "--no-", 1)
            parser.add_argument(off, dest=option.name, action="store_false", default=None, help=f"off: {option.label}")
        elif option.type is bool:
            parser.add_argument(flag, action="store_true", default=None, help=option.help)
        else:
            text = f"{option.help} (default: {option.unset or option.default})"
            parser.add_argument(flag, type=option.type, choices=option.choices or None, help=text)


def given(args: argparse.Namespace, kind: type[Options]) -> Options:
    """The options that were given by name, the others by default. Raises UserError for a value that cannot be."""
    named = {name: getattr(args, name, None) for name in options_of(kind, "cli")}
    options = kind(**{name: value for name, value in named.items() if value is not None})
    check(options)
    return options
