"""The reference: nothing that readers may use is missing, and the index can be reached."""

from __future__ import annotations

import argparse
import re
from html import unescape
from pathlib import Path
from types import ModuleType

import sgdmc
from sgdmc import cli


def _ids(page: Path) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))


def _text(page: Path) -> str:
    html = page.read_text(encoding="utf-8")
    article = html[html.index("<article") : html.index("</article>")]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", article)).split())


def test_every_public_name_is_documented(built_book: Path, reference_extension: ModuleType) -> None:
    pages = sorted((built_book / "reference").glob("*.html"))
    found = set().union(*(_ids(page) for page in pages))
    wanted = {f"sgdmc.{name}" for name in sgdmc.__all__}
    for room in reference_extension.rooms():
        for module in reference_extension.modules(room):
            wanted |= {address for _, address, _ in reference_extension.objects(module)}
    assert len(wanted) > 2 * len(sgdmc.__all__)
    assert not wanted - found


def test_the_list_of_names_links_each_to_its_entry(built_book: Path) -> None:
    html = (built_book / "reference" / "api.html").read_text(encoding="utf-8")
    for name in sgdmc.__all__:
        assert re.search(rf'href="[a-z]+\.html#sgdmc\.{name}"', html), name


def test_entries_hold_shapes_errors_sources_and_examples(built_book: Path) -> None:
    text = _text(built_book / "reference" / "chain.html")
    for part in ("sgdmc. stationary_distribution (", "Parameters", "shape (n, n)", "Raises"):
        assert part in text
    for part in ("References [ 1 ] Grassmann", "Examples >>> stationary_distribution"):
        assert part in text
    assert not re.search(r"R[0-9a-f]{12}", text)


def test_every_command_is_shown(built_book: Path) -> None:
    text = _text(built_book / "reference" / "command_line.html")
    actions = cli._parser()._actions
    commands = next(a.choices for a in actions if isinstance(a, argparse._SubParsersAction))
    for command in commands:
        assert f"usage: sgdmc {command} [-h]" in text


def test_the_index_is_in_the_contents_and_holds_terms_and_names(built_book: Path) -> None:
    for page in ("start.html", "chapters/long_run.html", "reference/api.html"):
        html = (built_book / page).read_text(encoding="utf-8")
        assert re.search(r'<li class="toctree-l1[^"]*"><a[^>]*href="(\.\./)?genindex\.html"', html)
    entries = _text(built_book / "genindex.html")
    for entry in (
        "barycenter blur debiased entropic",
        "Chapman–Kolmogorov test",
        "Lyapunov equation",
        "mixing time",
        "spectral_gap() (in module sgdmc)",
        "transition kernel",
        "Ulam's method",
    ):
        assert entry in entries, entry


def test_every_chapter_has_entries_in_the_index(built_book: Path) -> None:
    html = (built_book / "genindex.html").read_text(encoding="utf-8")
    for source in sorted((built_book / "_sources" / "chapters").glob("*.md")):
        assert f"chapters/{source.stem}.html#index-0" in html, source.stem
