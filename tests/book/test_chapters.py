"""Sources of the chapters: each follows the template, cites what exists, describes its figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = sorted((BOOK / "chapters").glob("*.md"))
CELL = re.compile(r"^```\{code-cell\} python3\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _toc_files() -> list[str]:
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    return [entry["file"] for part in toc["parts"] for entry in part["chapters"]]


def test_every_chapter_is_in_the_table_of_contents_and_exists() -> None:
    listed = {name for name in _toc_files() if name.startswith("chapters/")}
    assert listed == {f"chapters/{path.stem}" for path in CHAPTERS}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_follows_the_template(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # Without this block the cells are silently not run.
    assert text.startswith("---\njupytext:\n")
    assert "\nkernelspec:\n" in text
    parts = (
        "What you will be able to do",
        "**Prerequisites**",
        "**Run time**",
        "## The definition",
        "## An example that fits in a hand",
        "## Where it fails",
        "## Exercises",
        "## Summary",
    )
    places = [text.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    exercises = len(re.findall(r"^\*\*\d\.\*\*", text, re.MULTILINE))
    assert exercises >= 3
    assert text.count("code_prompt_show: Show the solution") == exercises


@pytest.mark.parametrize("path", [*CHAPTERS, BOOK / "start.md"], ids=lambda p: p.stem)
def test_cells_are_short_and_figures_are_described(path: Path) -> None:
    for cell in CELL.findall(path.read_text(encoding="utf-8")):
        head, _, code = cell.partition("\n---\n") if cell.startswith("---\n") else ("", "", cell)
        assert len(code.strip().splitlines()) <= 30, code[:200]
        assert all(len(line) <= 115 for line in code.splitlines()), code[:200]
        if "figure:" in head:
            assert "caption:" in head
            assert "name: fig-" in head
            described = (
                'aria-label="' in code if 'class="live"' in code else re.search(r"alt: \S", head)
            )
            assert described, head


def test_citations_and_bibliography_agree() -> None:
    keys = set(re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text("utf-8"), re.M))
    cited: set[str] = set()
    for path in [*CHAPTERS, BOOK / "start.md"]:
        for group in re.findall(r"\{cite:[pt]\}`([^`]+)`", path.read_text(encoding="utf-8")):
            cited.update(group.split(","))
    assert cited == keys
