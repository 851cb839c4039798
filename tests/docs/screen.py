"""Draws what a command wrote to a terminal as a picture (SVG). Pure.

The picture has its own dark ground, so that it is readable on a light and on a dark page. With
times its lines appear one after the other, again and again; a viewer that does not move
pictures, or whose reader does not want it, shows them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape, unescape

from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

#: Of one character, and of the frame, in units of the picture.
WIDTH, HEIGHT, FRAME = 7.8, 18.0, 14.0
#: Seconds that the whole text stays before it begins again.
HOLD = 6.0
THEME = TerminalTheme(
    (13, 17, 23), (230, 237, 243),
    [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34),
     (88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)],
)  # fmt: skip
_STYLE = """
  text { white-space: pre }
  svg { fill: #e6edf3;
    font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
  .dim { opacity: 0.65 } .bold { font-weight: 700 } .italic { font-style: italic }
"""


@dataclass(frozen=True, slots=True)
class Line:
    """`text` may have the codes of a terminal; `at` is when it appears, in seconds."""

    text: str
    at: float = 0.0


def drawn(title: str, lines: Sequence[Line], columns: int) -> str:
    width = columns * WIDTH + 2 * FRAME
    height = len(lines) * HEIGHT + 2 * FRAME
    end = max((line.at for line in lines), default=0.0)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"'
        ' role="img" aria-labelledby="title">',
        f'  <title id="title">{escape(title)}</title>',
        f"  <style>{_STYLE}{''.join(_moves(lines, end))}  </style>",
        f'  <rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="{_hex(THEME)}"/>',
    ]
    for number, line in enumerate(lines):
        y = FRAME + (number + 0.75) * HEIGHT
        texts = "".join(_pieces(line.text, y))
        moving = f' class="at{_steps(lines).index(line.at)}"' if end else ""
        out.append(f"  <g{moving}>{texts}</g>")
    return "\n".join([*out, "</svg>", ""])


def shown(picture: str) -> list[str]:
    """The lines of a picture of this kind."""
    lines: list[str] = []
    for group in re.findall(r"<g(?: [^>]*)?>(.*)</g>", picture):
        line = ""
        for x, text in re.findall(r'<text x="([\d.]+)"[^>]*>([^<]*)</text>', group):
            line = line.ljust(round((float(x) - FRAME) / WIDTH)) + unescape(text)
        lines.append(line)
    return lines


def _steps(lines: Sequence[Line]) -> list[float]:
    return sorted({line.at for line in lines})


def _moves(lines: Sequence[Line], end: float) -> Iterator[str]:
    if not end:
        return
    total = end + HOLD
    yield "  @media (prefers-reduced-motion: no-preference) {\n"
    for number, at in enumerate(_steps(lines)):
        if not at:
            continue
        before, after = at / total * 100, at / total * 100 + 0.01
        yield f"    .at{number} {{ animation: a{number} {total:g}s step-end infinite }}\n"
        yield (
            f"    @keyframes a{number} {{ 0%, {before:.2f}% {{ opacity: 0 }}"
            f" {after:.2f}%, 100% {{ opacity: 1 }} }}\n"
        )
    yield "  }\n"


def _pieces(text: str, y: float) -> Iterator[str]:
    console = Console(width=500, color_system="truecolor", force_terminal=True)
    column = 0
    for segment in Text.from_ansi(text).render(console):
        content = segment.text.rstrip("\n")
        if content.strip():
            lead = len(content) - len(content.lstrip())
            yield _piece(content.strip(), column + lead, y, segment.style or Style())
        column += len(content)


def _piece(text: str, column: int, y: float, style: Style) -> str:
    names = [name for name in ("dim", "bold", "italic") if getattr(style, name)]
    attributes = f' class="{" ".join(names)}"' if names else ""
    if style.color is not None and not style.color.is_default:
        red, green, blue = style.color.get_truecolor(THEME)
        attributes += f' fill="#{red:02x}{green:02x}{blue:02x}"'
    x, length = FRAME + column * WIDTH, len(text) * WIDTH
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" textLength="{length:.1f}"{attributes}>'
        f"{escape(text, quote=False)}</text>"
    )


def _hex(theme: TerminalTheme) -> str:
    red, green, blue = theme.background_color
    return f"#{red:02x}{green:02x}{blue:02x}"
