"""Sources of the chapters: each follows the template, cites what exists, describes its figures."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = sorted((BOOK / "chapters").glob("*.md"))
PAGES = [*CHAPTERS, BOOK / "start.md"]
CELL = re.compile(r"^```\{code-cell\} python3\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Distributions whose modules have other names.
MODULES = {"scikit-learn": "sklearn", "POT": "ot"}


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


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
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


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_figures_are_referred_to_and_equations_are_numbered(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"name: (fig-[\w-]+)", text):
        assert f"{{numref}}`{name}`" in text, name
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    ends = re.findall(r"^\$\$.*$", outside, re.MULTILINE)
    assert len(ends) % 2 == 0
    for end in ends[1::2]:
        assert re.fullmatch(r"\$\$ \(eq-[\w-]+\)", end), end


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_by_hand_and_package_are_both_timed(path: Path) -> None:
    cells = "\n".join(CELL.findall(path.read_text(encoding="utf-8")))
    assert len(re.findall(r"perf_counter\(\)|best_time\(", cells)) >= 3
    assert "sgdmc." in cells


def test_each_chapter_leads_to_the_next() -> None:
    order = [name for name in _toc_files() if name.startswith("chapters/")]
    text = {name: (BOOK / f"{name}.md").read_text(encoding="utf-8") for name in order}
    label = {name: re.findall(r"^\(([\w-]+)\)=\n# ", text[name], re.MULTILINE)[0] for name in order}
    for name, following in pairwise(order):
        (last,) = re.findall(r"^Next: (.*)$", text[name], re.MULTILINE)
        assert f"{{ref}}`{label[following]}`" in last


def test_start_has_exercises_and_names_every_chapter() -> None:
    text = (BOOK / "start.md").read_text(encoding="utf-8")
    exercises = len(re.findall(r"^\*\*\d\.\*\*", text, re.MULTILINE))
    assert exercises == text.count("code_prompt_show: Show the solution") >= 2
    for path in CHAPTERS:
        label = re.findall(r"^\(([\w-]+)\)=\n# ", path.read_text("utf-8"), re.MULTILINE)[0]
        assert f"{{ref}}`{label}`" in text, label


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_chapter_imports_only_what_the_package_requires(path: Path) -> None:
    project = tomllib.loads((BOOK.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[^\w.-]", line)[0] for line in project["dependencies"]]
    allowed = {"sgdmc", "IPython", *(MODULES.get(name, name) for name in names)}
    for cell in CELL.findall(path.read_text(encoding="utf-8")):
        code = re.sub(r"\A---\n.*?\n---\n", "", cell, flags=re.DOTALL)
        tree = ast.parse(re.sub(r"^[%!].*$", "", code, flags=re.MULTILINE))
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            roots = {module.split(".")[0] for module in modules}
            assert roots <= allowed | sys.stdlib_module_names, roots


def test_citations_and_bibliography_agree() -> None:
    keys = set(re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text("utf-8"), re.M))
    cited: set[str] = set()
    for path in PAGES:
        for group in re.findall(r"\{cite:[pt]\}`([^`]+)`", path.read_text(encoding="utf-8")):
            cited.update(group.split(","))
    assert cited == keys
