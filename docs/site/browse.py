"""Reads a built site in Debian's Chromium, as a desktop and as a phone, light and dark.

    python docs/site/browse.py build/site [--pictures FOLDER]

Every page must show without an error, load nothing from elsewhere, fit on the screen, and be
readable in both colour schemes; links and anchors must be there; what a copy button copies
can be typed; the search finds what people look for.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

#: Where the outputs of 80 columns and the pictures are looked at.
SCREENS = {"desktop": (1280, 900), "phone": (390, 844)}
SCHEMES = {"light": "default", "dark": "slate"}  # the browser's wish, the theme's name
#: What must be found, by the folder of the language, and in which pages.
SEARCHES = {
    "": ("Pending", "Insufficient", "privileged", "toleration"),
    "zh-CN/": ("Pending", "Insufficient", "privileged", "toleration", "排障", "显存"),
}
#: Pages whose copy buttons are pressed; where links of the first page must lead.
COPIED = ("quickstart.html", "troubleshooting.html", "install.html")
LED_TO = {
    "index.html": {"./run demo": "index.html#without-hardware", "Install": "install.html"},
    "zh-CN/index.html": {"./run demo": "zh-CN/index.html#没有硬件", "安装": "zh-CN/install.html"},
}
FACTS = """() => ({
  ids: [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name),
  links: [...document.querySelectorAll('a[href]')].map(e => e.href),
  wide: document.documentElement.scrollWidth - window.innerWidth,
  cut: [...document.querySelectorAll('article td, article img')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && box.right > window.innerWidth + 1;
  }).map(e => (e.innerText || e.src).slice(0, 60)),
  broken: [...document.images].filter(e => e.complete && !e.naturalWidth).map(e => e.src),
})"""
#: Texts whose contrast with what is behind them is less than the 4.5 of WCAG AA.
FAINT = """scheme => {
  document.body.setAttribute('data-md-color-scheme', scheme);
  const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const known = new Map();
  const colour = text => {
    if (!known.has(text)) {
      c.clearRect(0, 0, 1, 1); c.fillStyle = text; c.fillRect(0, 0, 1, 1);
      known.set(text, [...c.getImageData(0, 0, 1, 1).data].map(v => v / 255));
    }
    return known.get(text);
  };
  const over = (a, b) => a.slice(0, 3).map((v, i) => v * a[3] + b[i] * (1 - a[3])).concat([1]);
  const light = c => c.slice(0, 3).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => {
    const layers = [];
    for (; e; e = e.parentElement) layers.unshift(colour(getComputedStyle(e).backgroundColor));
    return layers.reduce((below, layer) => over(layer, below), [1, 1, 1, 1]);
  };
  const seen = new Map();
  for (const e of document.querySelectorAll(
      'article :is(p, li, td, th, h1, h2, h3, a:not(.headerlink), code, pre span),'
      + '.md-nav__link, .md-header__topic')) {
    const key = e.tagName + e.className + e.parentElement.tagName + e.parentElement.className;
    if (seen.has(key) || !e.textContent.trim() || !e.checkVisibility()) continue;
    const ground = behind(e), text = over(colour(getComputedStyle(e).color), ground);
    const [a, b] = [light(ground), light(text)].sort((x, y) => y - x);
    seen.set(key, [e.textContent.trim().slice(0, 40), (a + .05) / (b + .05)]);
  }
  return [...seen.values()].filter(([, ratio]) => ratio < 4.5)
    .map(([text, ratio]) => text + ' (' + ratio.toFixed(1) + ')');
}"""


@dataclass
class Visit:
    """What the pages of one screen had: anchors and links by address, and what was wrong."""

    ids: dict[str, set[str]] = field(default_factory=dict)
    links: dict[str, set[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The site's address while it is served on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def copyfile(self, source: Any, outputfile: Any) -> None:
            with suppress(ConnectionError):  # a browser that goes on to the next page
                super().copyfile(source, outputfile)

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


@contextmanager
def opened(
    browser: Browser, screen: str, home: str, wrong: list[str], scheme: str = "light"
) -> Iterator[Page]:
    """A page on one of the screens, which writes down errors and loads from elsewhere."""
    width, height = SCREENS[screen]
    phone = screen == "phone"
    context = browser.new_context(
        viewport={"width": width, "height": height},
        is_mobile=phone,
        has_touch=phone,
        device_scale_factor=2 if phone else 1,
        permissions=["clipboard-read", "clipboard-write"],
        reduced_motion="reduce",
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()

    def say(what: str) -> None:
        wrong.append(f"{screen}: {page.url.removeprefix(home)}: {what}")

    page.on("console", lambda m: say(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: say(str(error)))
    page.on("response", lambda r: say(f"{r.status} {r.url}") if r.status >= 400 else None)

    def only_from_here(url: str) -> None:
        if not url.startswith((home, "data:", "blob:")):
            say(f"loads {url}")

    page.on("request", lambda request: only_from_here(request.url))
    try:
        yield page
    finally:
        context.close()


def read_all(page: Page, screen: str, home: str, names: list[str], visit: Visit) -> None:
    for name in names:
        page.goto(home + name)
        facts = page.evaluate(FACTS)
        visit.ids[name] = set(facts["ids"])
        visit.links[name] = set(facts["links"])
        where = f"{screen}: {name}"
        if facts["wide"] > 0:
            visit.wrong.append(f"{where}: wider than the screen by {facts['wide']} pixels")
        if screen == "phone":  # a desktop's wide tables have a scroll bar
            visit.wrong += [f"{where}: off-screen: {text!r}" for text in facts["cut"]]
        visit.wrong += [f"{where}: no picture: {source}" for source in facts["broken"]]
        for scheme in SCHEMES.values() if screen == "desktop" else ():
            visit.wrong += [f"{where}: {scheme}: faint: {t}" for t in page.evaluate(FAINT, scheme)]


def dead_links(home: str, visit: Visit, site: Path) -> Iterator[str]:
    for name, links in visit.links.items():
        for link in sorted(links):
            if not link.startswith(home):
                continue
            url = urlsplit(link.removeprefix(home))
            target, anchor = unquote(url.path) or "index.html", unquote(url.fragment)
            if target.endswith("/"):
                target += "index.html"
            if not (site / target).is_file():
                yield f"{name}: {link} leads nowhere"
            elif anchor and anchor not in visit.ids.get(target, {anchor}):
                yield f"{name}: {link} has no such anchor"


def check_copied(page: Page, home: str, name: str) -> Iterator[str]:
    """Every copy button of a page is pressed, and the clipboard read."""
    page.goto(home + name)
    blocks = page.locator("article .highlight")
    pressed = 0
    for block in blocks.all():
        button = block.locator("button[data-clipboard-target]")
        if not button.count():
            continue
        page.evaluate("navigator.clipboard.writeText('nothing')")
        button.dispatch_event("click")
        copied = page.evaluate("navigator.clipboard.readText()")
        pressed += 1
        shown = block.locator("code").inner_text()
        if copied == "nothing" or not copied.strip():
            yield f"{name}: copied nothing of {shown[:60]!r}"
        for line in copied.splitlines():
            typed = shown.splitlines()
            if "\n$ " in f"\n{shown}" and f"$ {line}" not in {_bare(each) for each in typed}:
                yield f"{name}: copied what is not a command: {line!r}"
            if line.startswith("$ "):
                yield f"{name}: copied a prompt: {line!r}"
    if not pressed:
        yield f"{name}: no copy button"


def _bare(line: str) -> str:
    return re.sub(r"\s+#\s.*$", "", line.rstrip())


def check_search(page: Page, home: str, folder: str, word: str) -> Iterator[str]:
    """The word is typed, and a result of the pages that have it is marked."""
    page.goto(home + folder + "index.html")
    page.locator("label.md-search__icon[for=__search]").first.dispatch_event("click")
    page.locator(".md-search__input").fill(word)
    page.locator(".md-search__input").press("End")  # the theme listens to keys, not to input
    try:
        page.locator(".md-search-result__item").first.wait_for(timeout=15_000)
    except Exception:
        yield f"{page.url.removeprefix(home)}: the search finds nothing for {word}"
        return
    marked = page.locator(".md-search-result__item mark").all_inner_texts()
    if not any(word.lower() in text.lower() for text in marked):
        yield f"{page.url.removeprefix(home)}: the search for {word} finds {marked[:5]}"


def check_first_links(page: Page, home: str) -> Iterator[str]:
    for name, wanted in LED_TO.items():
        for text, target in wanted.items():
            page.goto(home + name)
            page.locator("article table").get_by_role("link", name=text, exact=True).first.click()
            page.wait_for_load_state()
            there = unquote(page.url.removeprefix(home))
            if there != target:
                yield f"{name}: {text!r} leads to {there}, not to {target}"


def check_scheme(browser: Browser, home: str, wrong: list[str]) -> Iterator[str]:
    for scheme, theme in SCHEMES.items():
        with opened(browser, "desktop", home, wrong, scheme) as page:
            page.goto(home + "index.html")
            shown = page.locator("body").get_attribute("data-md-color-scheme")
            if shown != theme:
                yield f"a browser that wishes {scheme} gets {shown}"


def pictures(browser: Browser, home: str, folder: Path, names: list[str]) -> None:
    """What the pages look like, for people."""
    folder.mkdir(parents=True, exist_ok=True)
    for screen in SCREENS:
        for scheme in SCHEMES:
            with opened(browser, screen, home, [], scheme) as page:
                for name in names:
                    page.goto(home + name)
                    file = f"{name.replace('/', '-').removesuffix('.html')}-{screen}-{scheme}.png"
                    page.screenshot(path=folder / file, full_page=False)


def check(browser: Browser, home: str, site: Path) -> list[str]:
    names = sorted(page.relative_to(site).as_posix() for page in site.rglob("*.html"))
    names.remove("404.html")  # its links are from the root of a server
    wrong: list[str] = []
    for screen in SCREENS:
        visit = Visit()
        with opened(browser, screen, home, visit.wrong) as page:
            read_all(page, screen, home, names, visit)
            visit.wrong += dead_links(home, visit, site)
            visit.wrong += check_first_links(page, home)
            for folder, words in SEARCHES.items():
                for word in words:
                    visit.wrong += check_search(page, home, folder, word)
                for name in COPIED:
                    visit.wrong += check_copied(page, home, folder + name)
        wrong += visit.wrong
    wrong += check_scheme(browser, home, wrong)
    return list(dict.fromkeys(wrong))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("site", type=Path)
    parser.add_argument("--pictures", type=Path, help="write pictures of pages here instead")
    parser.add_argument("--pages", nargs="*", default=["index.html", "zh-CN/index.html"])
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        print("browse: no chromium; tools/docs installs it as root", file=sys.stderr)
        return 1
    with sync_playwright() as playwright, served(options.site.resolve()) as home:
        # Its sandbox does not work as root; the pages are this repository's own. No name is
        # resolved: what is looked for elsewhere is reported, and not loaded.
        arguments = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        if options.pictures:
            pictures(browser, home, options.pictures, options.pages)
            return 0
        wrong = check(browser, home, options.site.resolve())
        browser.close()
    for line in wrong:
        print(f"browse: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
