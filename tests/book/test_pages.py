"""Every page of the built book, as a reader's browser sees it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(1500),
    # playwright's own event loop leaves these behind when it is closed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


def _pages(built_book: Path) -> list[str]:
    names = (p.relative_to(built_book).as_posix() for p in built_book.rglob("*.html"))
    return sorted(name for name in names if not name.startswith("_"))


class Watch:
    """A browser page and everything that goes wrong on it."""

    def __init__(self, page: Page, base_url: str) -> None:
        self.page, self.base_url, self.faults = page, base_url, list[str]()
        page.set_default_timeout(120_000)  # the machine may be busy with other tests
        page.on("pageerror", lambda error: self.faults.append(f"JavaScript: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)
        page.on("response", self._response)

    def _console(self, message: object) -> None:
        if getattr(message, "type", "") == "error":
            where = getattr(message, "location", {}).get("url", "")
            self.faults.append(f"console: {getattr(message, 'text', '')} {where}")

    def _request(self, request: object) -> None:
        url = str(getattr(request, "url", ""))
        if not url.startswith((self.base_url, "data:", "blob:")):
            self.faults.append(f"request leaves the book: {url}")

    def _response(self, response: object) -> None:
        status = int(getattr(response, "status", 0))
        if status >= 400:
            self.faults.append(f"{status}: {getattr(response, 'url', '')}")

    def open(self, name: str) -> None:
        """Load a page and wait until its equations are typeset."""
        self.page.goto(urljoin(self.base_url, name), wait_until="load")
        self.page.wait_for_function(
            "() => !document.querySelector('.math') ||"
            " (window.MathJax && MathJax.startup && MathJax.startup.promise)"
        )
        # A page without equations may still be loading MathJax: there is nothing to wait for then.
        self.page.evaluate(
            "async () => { if (window.MathJax?.startup) await MathJax.startup.promise; }"
        )


@pytest.fixture(scope="module")
def watch(browser: Browser, base_url: str) -> Iterator[Watch]:
    context = browser.new_context(viewport=DESKTOP)
    yield Watch(context.new_page(), base_url)
    context.close()


def test_every_page_loads_from_the_book_alone_and_whole(watch: Watch, built_book: Path) -> None:
    faults: list[str] = []
    for name in _pages(built_book):
        watch.faults.clear()
        watch.open(name)
        page = watch.page
        broken = page.evaluate(
            "() => [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
        )
        nameless = page.evaluate(
            "() => [...document.querySelectorAll('article img')]"
            ".filter(i => !i.alt || /_build|\\.png$/.test(i.alt)).map(i => i.src)"
        )
        # MathJax marks what it cannot read; an equation without a container was not typeset.
        raw = page.evaluate(
            "() => [...document.querySelectorAll('.math')]"
            ".filter(m => !m.querySelector('mjx-container') || m.querySelector('mjx-merror'))"
            ".map(m => m.textContent.slice(0, 80))"
        )
        undrawn = page.evaluate(
            "() => [...document.querySelectorAll('.cell_output')]"
            ".some(o => /<Figure size|Traceback/.test(o.innerText))"
        )
        faults += [f"{name}: {fault}" for fault in watch.faults]
        faults += [f"{name}: a figure that was not drawn, or a traceback"] if undrawn else []
        faults += [f"{name}: broken image {src}" for src in broken]
        faults += [f"{name}: image without a description {src}" for src in nameless]
        faults += [f"{name}: equation not typeset: {text}" for text in raw]
    assert not faults, "\n".join(faults)


def test_every_page_names_an_icon_that_exists(built_book: Path) -> None:
    # A browser that finds none asks for /favicon.ico, when it has the time: index.html was such.
    for name in _pages(built_book):
        page = built_book / name
        icons = re.findall(r'<link[^>]*rel="[^"]*\bicon\b[^"]*"[^>]*>', page.read_text("utf-8"))
        assert icons, name
        for icon in icons:
            target = re.search(r'href="([^"?#]+)', icon)
            assert target is not None, name
            assert (page.parent / target[1]).is_file(), f"{name}: {icon}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_overflows_a_phone(
    browser: Browser, base_url: str, built_book: Path, scheme: str
) -> None:
    context = browser.new_context(viewport=PHONE, color_scheme=scheme)
    watch = Watch(context.new_page(), base_url)
    faults = []
    for name in _pages(built_book):
        watch.open(name)
        width = watch.page.evaluate("() => document.documentElement.scrollWidth")
        theme = watch.page.evaluate("() => document.documentElement.dataset.theme")
        if width > PHONE["width"]:
            faults.append(f"{name}: {width} pixels wide")
        if theme != scheme and "article" in watch.page.content():
            faults.append(f"{name}: theme is {theme}")
    context.close()
    assert not faults, "\n".join(faults)


def test_dark_mode_changes_text_and_ground(browser: Browser, base_url: str) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport=DESKTOP, color_scheme=scheme)
        watch = Watch(context.new_page(), base_url)
        watch.open("start.html")
        colours[scheme] = watch.page.evaluate(
            "() => { const s = getComputedStyle(document.body);"
            " return [s.color, s.backgroundColor].map(c => c.match(/\\d+/g).slice(0, 3)"
            ".reduce((a, v) => a + Number(v), 0)); }"
        )
        context.close()
    assert colours["light"][0] < colours["light"][1]
    assert colours["dark"][0] > colours["dark"][1]


def test_equations_fit_beside_their_numbers(watch: Watch, built_book: Path) -> None:
    faults = []
    for name in _pages(built_book):
        watch.open(name)
        wide = watch.page.evaluate(
            """() => [...document.querySelectorAll('div.math')].filter((block) => {
              const maths = block.querySelector('mjx-math').getBoundingClientRect();
              const number = block.querySelector('.eqno')?.getBoundingClientRect();
              return maths.width > block.clientWidth || (number && maths.right > number.left + 1);
            }).map((block) => block.id || block.textContent.slice(0, 40))"""
        )
        faults += [f"{name}: {equation}" for equation in wide]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_captions_stand_out_from_the_ground(browser: Browser, base_url: str, scheme: str) -> None:
    context = browser.new_context(viewport=DESKTOP, color_scheme=scheme)
    watch = Watch(context.new_page(), base_url)
    watch.open("chapters/long_run.html")
    weights, ratios = watch.page.evaluate(
        """() => {
          const luminance = (text) => {
            const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(Number).map((c) => {
              const v = c / 255;
              return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = luminance(getComputedStyle(document.body).backgroundColor);
          const styles = [...document.querySelectorAll('figcaption .caption-text')].map(
            (node) => getComputedStyle(node));
          return [styles.map((s) => Number(s.fontWeight)), styles.map((s) => {
            const ink = luminance(s.color);
            return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
          })];
        }"""
    )
    context.close()
    assert min(weights) >= 400
    assert min(ratios) >= 7  # WCAG 2.1, enhanced contrast of text


def test_search_finds_a_term(watch: Watch) -> None:
    watch.faults.clear()
    watch.open("search.html?q=Markov")
    watch.page.wait_for_selector("#search-results li a", timeout=20_000)
    found = watch.page.eval_on_selector_all(
        "#search-results li a", "links => links.map(a => a.getAttribute('href'))"
    )
    assert any("chapters/sgd_markov_chain.html" in link for link in found)
    assert not watch.faults


def broken_links(folder: Path) -> list[str]:
    """Internal links and anchors of a folder of pages that lead nowhere."""
    text = {name: (folder / name).read_text(encoding="utf-8") for name in _pages(folder)}
    anchors = {name: set(re.findall(r'\bid="([^"]+)"', page)) for name, page in text.items()}
    faults = set()
    for name, page in text.items():
        for link in re.findall(r'<(?:a|link|script|img)\b[^>]*?(?:href|src)="([^"]*)"', page):
            if re.match(r"[a-z]+:", link) or link.startswith("//"):
                continue
            address, anchor = urldefrag(link.split("?")[0] if "#" not in link else link)
            address = unquote(address.split("?")[0])
            target = os.path.normpath(Path(name).parent / address) if address else name
            if not (folder / target).exists():
                faults.add(f"{name}: {link}")
            elif anchor and target in anchors and unquote(anchor) not in anchors[target]:
                faults.add(f"{name}: no anchor {link}")
    return sorted(faults)


def test_the_link_checker_sees_faults(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "one.html").write_text('<p id="here"><a href="sub/two.html#there">a</a>')
    (tmp_path / "sub" / "two.html").write_text(
        '<img src="gone.png"><a href="../one.html#here">b</a><a href="https://example.org/x">c</a>'
    )
    found = broken_links(tmp_path)
    assert found == ["one.html: no anchor sub/two.html#there", "sub/two.html: gone.png"]


def test_internal_links_and_anchors_exist(built_book: Path) -> None:
    assert len(_pages(built_book)) > 25
    faults = broken_links(built_book)
    assert not faults, "\n".join(faults)


def test_every_chapter_is_offered_as_a_notebook(built_book: Path) -> None:
    for source in sorted((built_book / "_sources" / "chapters").glob("*.md")):
        page = (built_book / "chapters" / f"{source.stem}.html").read_text(encoding="utf-8")
        assert source.with_suffix(".ipynb").is_file()
        assert f"_sources/chapters/{source.stem}.ipynb" in page
