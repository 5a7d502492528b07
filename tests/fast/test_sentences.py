"""What users read, walked through in the source: short sentences, no flag of the command line, American spelling."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperdreambooth_ext import errors
from hyperdreambooth_ext.cli.cli import main

PACKAGE = Path(__file__).parents[2] / "hyperdreambooth_ext"
FILES = sorted(PACKAGE.rglob("*.py"))
ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type)} | {"QueueFull", "UnknownJob"}
LONGEST = 20
FLAG = re.compile(r"(?<![\w-])--[a-z]")
BRITISH = re.compile(
    r"\b(colour|grey|centre|licence|behaviour|favour|neighbour|catalogue|dialogue|programme|artefact|"
    r"(recogn|personal|optim|initial|normal|organ|quant|visual|general|standard)is(e|ed|es|er|ing|ation)\b|"
    r"(label|model|travel)l(ed|ing)\b)",
    re.IGNORECASE,
)


def words_of(node: ast.AST) -> str | None:
    """A text as it stands in the source, with "X" where a value goes; None for what is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
    return None


def texts(tree: ast.Module) -> Iterator[str]:
    """All texts but docstrings and what stands alone as a comment."""
    comments = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    yield from (text for node in ast.walk(tree) if id(node) not in comments and (text := words_of(node)))


def told(tree: ast.Module) -> Iterator[str]:
    """The sentences of all errors that are meant for the user."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
            yield words_of(node.args[0]) or ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_texts_name_no_flag_and_are_american(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for text in texts(tree):
        # Names of files, keys and stages stay as files and clients know them.
        assert not (" " in text and BRITISH.search(text)), text
        assert file.parent.name == "cli" or not FLAG.search(text), text
    for sentence in filter(None, told(tree)):
        assert sentence.endswith((".", "X")), sentence
        counted = [len(re.findall(r"[\w<']+", part)) for part in re.split(r"(?<=\w)\. ", sentence)]
        assert max(counted) <= LONGEST, sentence


def test_the_walk_finds_the_sentences():
    found = [sentence for file in FILES for sentence in told(ast.parse(file.read_text(encoding="utf-8")))]
    assert len(found) > 80 and FLAG.search("use --overwrite.") and BRITISH.search("recognised")


def test_the_command_line_adds_its_flags(tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(b"")
    assert main(["generate", "a face", "--out", str(tmp_path / "x.png")]) == 1
    assert "allow replacing it (--overwrite)." in capsys.readouterr().err
