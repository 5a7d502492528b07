"""The options as flags of the command line."""

import argparse
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ..personalize.options import Option, check, options_of

Options = TypeVar("Options")


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option], former: Mapping[str, str] = {}) -> None:
    """One flag for each; what is not given is None. `former`: earlier names of options, which are taken as well."""
    for option in options:
        names = [option.name, *(old for old, name in former.items() if name == option.name)]
        flags = ["--" + name.replace("_", "-") for name in names]
        if option.type is bool and option.default:
            off = flags[0].replace("--", "--no-", 1)
            parser.add_argument(off, dest=option.name, action="store_false", default=None, help=f"off: {option.label}")
        elif option.type is bool:
            parser.add_argument(*flags, action="store_true", default=None, help=option.help)
        else:
            default = option.unset or option.default
            text = option.help if default == "" else f"{option.help} (default: {default})"
            parser.add_argument(*flags, dest=option.name, type=option.type, choices=option.choices or None, help=text)


def named(args: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The options that were given by name."""
    values = {name: getattr(args, name, None) for name in options_of(kind, "cli")}
    return {name: value for name, value in values.items() if value is not None}


def given(args: argparse.Namespace, kind: type[Options]) -> Options:
    """The options as they were given, the others by default. Raises UserError for a value that cannot be."""
    options = kind(**named(args, kind))
    check(options)
    return options
