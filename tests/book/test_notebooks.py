"""Chapters as their readers run them: the downloaded notebooks, in the time that they state."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jupytext
import nbformat
import pytest
from jupyter_cache import get_cache
from nbclient import NotebookClient
from nbformat import NotebookNode as Notebook

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = sorted((BOOK / "chapters").glob("*.md"))
PAGES = [*CHAPTERS, BOOK / "start.md"]
RUN_TIME = re.compile(r"\*\*Run time\*\*: about (\d+) s\.")
SHORT = ("sgd_markov_chain", "long_run", "seeing_kernel")


@pytest.fixture
def run_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Notebook], float]:
    """Run a notebook in a fresh kernel and an empty folder; returns the seconds that it took."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    resources = {"metadata": {"path": str(tmp_path)}}

    def run(notebook: Notebook) -> float:
        began = time.perf_counter()
        NotebookClient(notebook, timeout=500, resources=resources).execute()
        return time.perf_counter() - began

    return run


def _downloaded(built_book: Path, page: Path) -> Notebook:
    name = page.relative_to(BOOK).with_suffix(".ipynb")
    return nbformat.read(built_book / "_sources" / name, as_version=4)


def _stated(chapter: Path) -> int:
    (seconds,) = RUN_TIME.findall(chapter.read_text(encoding="utf-8"))
    return int(seconds)


@pytest.mark.parametrize("chapter", PAGES, ids=lambda p: p.stem)
def test_chapter_states_its_run_time_once_and_keeps_to_a_minute(chapter: Path) -> None:
    assert 5 <= _stated(chapter) <= 60


def test_chapters_together_state_less_than_ten_minutes() -> None:
    assert sum(_stated(chapter) for chapter in PAGES) < 600


@pytest.mark.timeout(1500)
def test_chapters_run_in_at_most_twice_the_time_that_they_state(
    built_book: Path, book_extension: ModuleType, run_notebook: Callable[[Notebook], float]
) -> None:
    # The build runs each chapter top to bottom in a fresh kernel and a folder of its own, with
    # the cells of the downloaded notebook (next test), and records how long that took. A machine
    # that was busy then gets a second try, with the notebook itself.
    cache = get_cache(built_book.parent / ".jupyter_cache" / book_extension.package_hash())
    records = sorted(cache.list_cache_records(), key=lambda record: record.created)
    took = {Path(record.uri).name: record.data["execution_seconds"] for record in records}
    assert set(took) >= {page.name for page in PAGES}
    # A cold build runs each once: under ten minutes, with as much again for a busy machine.
    assert sum(took[page.name] for page in PAGES) <= 2 * 600
    late = {}
    for chapter in PAGES:
        seconds, allowed = took[chapter.name], 2 * _stated(chapter)
        if seconds > allowed:
            seconds = run_notebook(_downloaded(built_book, chapter))
        if seconds > allowed:
            late[chapter.stem] = f"{seconds:.0f} s, stated {_stated(chapter)} s"
    assert not late


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_download_is_a_valid_notebook_with_the_cells_of_the_chapter(
    built_book: Path, page: Path
) -> None:
    notebook = _downloaded(built_book, page)
    nbformat.validate(notebook)
    source = jupytext.read(page, fmt="md:myst")
    first, *code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "find_spec" in first.source
    assert [c.source for c in code] == [c.source for c in source.cells if c.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in [first, *code])
    assert not any("{index}" in cell.source for cell in notebook.cells)
    html = (built_book / page.relative_to(BOOK).with_suffix(".html")).read_text(encoding="utf-8")
    assert f"_sources/{page.relative_to(BOOK).with_suffix('.ipynb')}" in html


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SHORT)
def test_download_runs_from_top_to_bottom(
    built_book: Path, name: str, run_notebook: Callable[[Notebook], float]
) -> None:
    notebook = _downloaded(built_book, BOOK / "chapters" / f"{name}.md")
    run_notebook(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(out.output_type == "error" for cell in code for out in cell.outputs)


def test_buttons_stand_on_every_chapter_and_lead_where_they_say(built_book: Path) -> None:
    for page in PAGES:
        html = (built_book / page.relative_to(BOOK).with_suffix(".html")).read_text("utf-8")
        for name in ("Binder", "Colab"):
            (link,) = re.findall(
                rf'<a href="([^"]+)"[^>]*title="Run this chapter on {name}"', html, re.DOTALL
            )
            assert link.startswith("https://") or link.endswith("elsewhere.html")


SETTINGS = {
    "repository": "https://github.com/someone/project.git",
    "branch": "main",
    "notebooks_branch": "gh-pages",
    "binder": "https://binder.example",
    "colab": "https://colab.example",
}


def test_buttons_follow_from_one_value(launch_extension: ModuleType, tmp_path: Path) -> None:
    repository = launch_extension.published(SETTINGS, tmp_path)
    assert repository == "https://github.com/someone/project"
    found = launch_extension.links(SETTINGS, repository, "chapters/long_run")
    assert found == {
        "Binder": "https://binder.example/v2/gh/someone/project/main"
        "?urlpath=lab/tree/book/chapters/long_run.md",
        "Colab": "https://colab.example/github/someone/project/blob/gh-pages/_sources/"
        "chapters/long_run.ipynb",
    }
    elsewhere = launch_extension.links(SETTINGS, "https://git.example/a/b", "start")
    assert elsewhere == {
        "Binder": "https://binder.example/v2/git/https%3A%2F%2Fgit.example%2Fa%2Fb/main"
        "?urlpath=lab/tree/book/start.md"
    }


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@github.com:someone/project.git", "https://github.com/someone/project"),
        ("https://github.com/someone/project", "https://github.com/someone/project"),
        ("/srv/project", ""),
        ("", ""),
    ],
)
def test_address_is_that_of_the_clone_if_none_is_set(
    launch_extension: ModuleType, git_folder: Path, remote: str, address: str
) -> None:
    if remote:
        config = f'[remote "origin"]\n\turl = {remote}\n'
        (git_folder / ".git" / "config").write_text(config, encoding="utf-8")
    assert launch_extension.published({**SETTINGS, "repository": ""}, git_folder) == address


def test_first_cell_installs_only_what_is_missing(launch_extension: ModuleType) -> None:
    for repository in ("", "https://github.com/someone/project"):
        cell = launch_extension.install_cell(SETTINGS, repository)
        guard, last = cell.splitlines()[-2:]
        assert guard == 'if find_spec("sgdmc") is None:'
        assert repository in last
        assert ("%pip install" in last) is True
