"""What the copy button of a code block puts on the clipboard: what can be typed. Pure.

A block of commands is copied without its comments (zsh takes them for arguments), a
transcript without its prompts and outputs; an output has no button.
"""

from __future__ import annotations

import html
import re

#: A block as pymdownx.highlight makes it, with `pygments_lang_class`.
_BLOCK = re.compile(
    r'<div class="language-(?P<language>[\w-]+) highlight">(?P<code>.*?)</code></pre></div>',
    re.DOTALL,
)
_COMMENT = re.compile(r"(^|\s+)#\s.*$")


def commands(text: str, *, transcript: bool) -> str:
    """The commands of a block of `sh`, or those that follow a `$ ` in a transcript, with the
    lines that continue them."""
    lines: list[str] = []
    open_, here_document = False, ""
    for shown in text.splitlines():
        if here_document:
            lines.append(shown)
            here_document = "" if shown.strip() == here_document else here_document
            continue
        if transcript and not open_ and not shown.startswith("$ "):
            continue
        prompt = "$ " if transcript and not open_ else ""
        line = _COMMENT.sub("", shown.removeprefix(prompt))
        if line.strip():
            lines.append(line)
        open_ = line.endswith("\\")
        started = re.search(r"<<-?\s*'?(\w+)'?", line)
        here_document = started[1] if started else ""
    return "\n".join(lines)


def with_copied_text(page: str) -> str:
    """The HTML of a page, each block of which says what of it is copied."""

    def block(match: re.Match[str]) -> str:
        language = match["language"]
        text = html.unescape(re.sub(r"<[^>]+>", "", match["code"]))
        transcript = text.startswith("$ ") or "\n$ " in text
        attributes = ""
        if transcript or language == "sh":
            copied = html.escape(commands(text, transcript=transcript))
            attributes = f' data-copy="{copied}"'.replace("\n", "&#10;")
        elif language in ("text", "console"):
            language += " no-copy"
        return (
            f'<div class="language-{language} highlight"{attributes}>'
            f"{match['code']}</code></pre></div>"
        )

    return _BLOCK.sub(block, page)
