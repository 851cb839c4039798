"""What mkdocs has to be told of these documents.

They are written to be read in the repository too, so they link to each other, to files
outside of docs/ and between the languages by relative paths. Here

- the navigation is made from nav.yml, as far as its pages exist;
- a file outside of docs/ that is linked to becomes part of the site: a Markdown file a
  page, anything else a file (both below source/);
- a link from one language's build into the other's is made one from page to page.

English and Chinese are two builds, each with a search of its own language; the English
one, at the root, has everything that has no language.
"""

from __future__ import annotations

import logging
import posixpath
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import jieba
import yaml
from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

import copying  # noqa: E402
import pages  # noqa: E402
import tables  # noqa: E402

CHINESE = "zh-CN/"
SOURCE = "source/"
#: Stands for the site's root in a link to the other build, until the page's own is known.
ELSEWHERE = "site-root:"
#: The repository's own first pages: in a link the site's stand for them.
FIRST_PAGES = {ROOT / "README.md": "index.md", ROOT / "README.zh-CN.md": "zh-CN/index.md"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    jieba.setLogLevel(logging.WARNING)  # it tells how it loads its dictionary
    config.nav = navigation(Path(config.docs_dir), chinese(config))
    config.markdown_extensions.append(Rewriting(config))  # type: ignore[arg-type]
    config.mdx_configs["toc"] = {
        "permalink": True,
        "slugify": lambda text, separator: pages.slug(text),
        "toc_depth": 3,
    }
    return config


def chinese(config: MkDocsConfig) -> bool:
    return Path(config.docs_dir).name == CHINESE.strip("/")


def navigation(docs: Path, chinese: bool) -> list[Any]:
    result: list[Any] = []
    for section in yaml.safe_load((HERE / "nav.yml").read_text()):
        for titles, content in section.items():
            if isinstance(content, str):  # a folder: all that is in it, by name
                found = sorted((docs / content).glob("*.md"))
                entries: list[Any] = [file.relative_to(docs).as_posix() for file in found]
            else:
                named = [pair for entry in content for pair in entry.items()]
                entries = [
                    {_title(names, chinese): name}
                    for name, names in named
                    if (docs / name).exists() or name == "index.md"
                ]
            if entries:
                result.append({_title(titles, chinese): entries})
    return result


def _title(names: str, chinese: bool) -> str:
    return str(names.split(" | ")[chinese])


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name in ("style.css", "logo.svg"):
        files.append(File.generated(config, name, abs_src_path=str(HERE / name)))
    if chinese(config):
        if files.get_file_from_path("index.md") is None:
            files.append(File.generated(config, "index.md", content=_contents(config)))
        return files
    wanted = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    docs = Path(config.docs_dir)
    reading = [file for file in docs.rglob("*.md") if HERE not in file.parents]
    seen: set[Path] = set()
    while reading:
        page = reading.pop()
        for link in pages.links(page.read_text()):
            target = _file_of(link.target, page)
            if target is not None and docs not in target.parents:
                wanted.append(target)
        while wanted:
            file = wanted.pop()
            if file in seen or file in FIRST_PAGES or not file.is_file():
                continue
            seen.add(file)
            uri = SOURCE + file.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(file)))
            if file.suffix == ".md":
                reading.append(file)
    return files


def _contents(config: MkDocsConfig) -> str:
    """A page that lists the others, where nobody wrote an index."""
    lines = [f"# {config.site_name}"]
    for section in config.nav or []:
        for title, entries in section.items():
            lines += ["", f"## {title}", ""]
            for entry in entries:
                for name, file in entry.items() if isinstance(entry, dict) else [(entry, entry)]:
                    if file != "index.md":
                        lines.append(f"- [{name}]({file})")
    return "\n".join(lines)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    Rewriting.page = page
    return pages.for_python_markdown(markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = posixpath.dirname((CHINESE if chinese(config) else "") + page.url)

    def relative(match: re.Match[str]) -> str:
        return posixpath.relpath(match[1], here or ".")

    return re.sub(rf"{ELSEWHERE}([^\"#]*)", relative, copying.with_copied_text(html))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """The theme looks for a sitemap beside each page that these lead to; there is none."""
    return re.sub(r'<link rel="alternate"[^>]*>', "", output)


def on_page_context(context: Any, page: Page, config: MkDocsConfig, nav: Any) -> Any:
    """The switch between the languages stays on the page, where the other one has it."""
    name = page.file.src_uri
    there = ROOT / "docs" / ("" if chinese(config) else CHINESE) / name
    other = posixpath.splitext(name)[0] + ".html" if there.exists() else "index.html"
    mine = page.url or "index.html"
    english, hanzi = (other, mine) if chinese(config) else (mine, other)
    up = "../" if chinese(config) else ""  # the theme makes links from the root relative
    config.extra["alternate"] = [
        {"name": "English", "link": up + english, "lang": "en"},
        {"name": "中文", "link": up + CHINESE + hanzi, "lang": "zh-CN"},
    ]
    return context


def _file_of(target: str, page: Path) -> Path | None:
    """The file in the repository that a link of `page` leads to; None for other links."""
    path = target.partition("#")[0]
    if not path or re.match(r"[a-z]+:|/", path):
        return None
    return (page.parent / path).resolve()


class Rewriting(Extension):
    """Makes links of the repository into links of the site."""

    page: Page

    def __init__(self, config: MkDocsConfig) -> None:
        super().__init__()
        self.mkdocs = config

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        # After inline patterns (20), and before mkdocs' own look at links (0).
        md.treeprocessors.register(_Links(md, self), "repository-links", 5)
        md.treeprocessors.register(tables.CellTitles(md), "cell-titles", 4)


class _Links(Treeprocessor):
    def __init__(self, md: Markdown, owner: Rewriting) -> None:
        super().__init__(md)
        self.owner = owner

    def run(self, root: Element) -> None:
        for element in root.iter():
            for attribute in ("href", "src"):
                target = element.get(attribute)
                if target is None:
                    continue
                rewritten = self._rewritten(target)
                if rewritten is None:
                    element.tag = "span"
                    del element.attrib[attribute]
                else:
                    element.set(attribute, rewritten)

    def _rewritten(self, target: str) -> str | None:
        """None for a folder, of which the site has nothing to show."""
        config, page = self.owner.mkdocs, self.owner.page
        docs = Path(config.docs_dir)
        source = docs / page.file.src_uri
        if page.file.src_uri.startswith(SOURCE):
            source = ROOT / page.file.src_uri.removeprefix(SOURCE)
        file = _file_of(target, source)
        if file is None:
            return target
        anchor = target.partition("#")[1] + target.partition("#")[2]
        if file.is_dir():
            file = file / "README.md"
            if not file.exists():
                return None
        if not file.exists() and chinese(config):  # not translated: the English page
            file = ROOT / "docs" / file.relative_to(docs)
        if not file.exists():
            raise PluginError(f"{source.relative_to(ROOT)}: {target} leads nowhere")
        if file in FIRST_PAGES:
            if anchor:
                raise PluginError(f"{page.file.src_uri}: {target}: that heading is not on the site")
            file = ROOT / "docs" / FIRST_PAGES[file]
        inside, english = docs in file.parents, ROOT / "docs" in file.parents
        if inside and (chinese(config) or docs / CHINESE not in file.parents):
            uri = file.relative_to(docs).as_posix()
        elif chinese(config) or english:
            path = file.relative_to(ROOT / "docs" if english else ROOT).as_posix()
            name = path if english else SOURCE + path
            page_name = re.sub(r"\.md$", ".html", name).replace("README.html", "index.html")
            return f"{ELSEWHERE}{page_name}{anchor}"
        else:
            uri = SOURCE + file.relative_to(ROOT).as_posix()
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".") + anchor
