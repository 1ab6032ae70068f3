"""Spelling: no common misspelling, and British spelling throughout."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import codespell_lib
import pytest

ROOT = Path(__file__).resolve().parents[2]
DICTIONARIES = Path(codespell_lib.__file__).parent / "data"
PROSE = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "book").glob("*.md"),
        *(ROOT / "book" / "chapters").glob("*.md"),
        *(ROOT / "book" / "reference").glob("*.md"),
        *(ROOT / "src").rglob("*.md"),
    ]
)
MODULES = sorted((ROOT / "src" / "sgdmc").rglob("*.py"))
# Right as they stand: a computer runs a program, and practice is a noun here.
FINE = {"practice", "program", "programs"}


def _dictionary(name: str) -> dict[str, str]:
    lines = (DICTIONARIES / f"dictionary{name}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("->", 1) for line in lines if "->" in line)


@pytest.fixture(scope="module")
def wrong() -> dict[str, str]:
    """Misspelt words, and American ones, with what they should be."""
    british = _dictionary("_en-GB_to_en-US")
    american = {us.split(",")[0].strip(): gb for gb, us in british.items()}
    known = {**_dictionary(""), **_dictionary("_rare"), **american}
    return {word: right for word, right in known.items() if word not in FINE}


def prose(markdown: str) -> str:
    """Return the words that a reader reads: no cells, code, formulas, addresses or sources."""
    text = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
    cells = re.findall(r"^ {4,}(?:caption: \|\n(?: {6}.*\n)+|alt: .*)", text, flags=re.MULTILINE)
    text = re.sub(
        r"^```\{?(?:code-cell|index|eval|sh|text|python).*?^```", "", text, flags=re.M | re.S
    )
    text = "\n".join([re.sub(r"^ *(```|:::).*$", "", text, flags=re.MULTILINE), *cells])
    for hidden in (
        r"\$\$.*?\$\$",
        r"\$[^$]+\$",
        r"``.*?``",
        r"`[^`]*`",
        r"https?://\S+",
        r"\]\([^)]*\)",
    ):
        text = re.sub(hidden, " ", text, flags=re.DOTALL)
    return text


def docstrings(module: Path) -> Iterator[str]:
    """Yield the docstrings of a module, without the examples and sources in them."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            text = re.split(r"\n\s*References\n", text)[0]
            text = re.sub(r"^\s*(>>>|\.\.\.?) .*$", " ", text, flags=re.MULTILINE)
            yield re.sub(r"``.*?``|:\w+:`[^`]*`|`[^`]*`|\"[^\"\n]*\"", " ", text, flags=re.DOTALL)


def faults(text: str, wrong: dict[str, str]) -> list[str]:
    words = re.findall(r"(?<![\w.\\-])[A-Za-z]+(?:'[a-z]+)?(?![\w(=])", text)
    return sorted({f"{w} -> {wrong[w.lower()]}" for w in words if w.lower() in wrong})


def test_the_checker_sees_faults_and_leaves_code_alone(wrong: dict[str, str]) -> None:
    text = "A colour, teh color of `color=` and $color$.\n"
    found = faults(prose(text), wrong)
    assert [fault.split(" ->")[0] for fault in found] == ["color", "teh"]


@pytest.mark.parametrize("path", PROSE, ids=lambda p: p.stem)
def test_prose_is_spelt_right(path: Path, wrong: dict[str, str]) -> None:
    assert not faults(prose(path.read_text(encoding="utf-8")), wrong)


def test_docstrings_are_spelt_right(wrong: dict[str, str]) -> None:
    found = {
        str(module.relative_to(ROOT)): listed
        for module in MODULES
        if (listed := faults("\n".join(docstrings(module)), wrong))
    }
    assert not found
