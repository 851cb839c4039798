"""Badges of the first page, from the files that they are about."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence

from .documents import ROOT

HEIGHT, CHARACTER, MARGIN, GAP = 20, 6.6, 8, 6


def facts() -> list[tuple[str, str]]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    table = (ROOT / "docs/compatibility.md").read_text()
    tested = re.findall(r"^\| (1\.\d+)\.\d+ \| tested \|", table, re.MULTILINE)
    return [
        ("licence", project["license"]),
        ("Python", project["requires-python"].replace(">=", "") + " and later"),
        ("device plugin API", "v1beta1"),
        ("tested on Kubernetes", " and ".join(tested)),
    ]


def drawn(badges: Sequence[tuple[str, str]]) -> str:
    out: list[str] = []
    x = 0.0
    for name, value in badges:
        left, right = (len(text) * CHARACTER + 2 * MARGIN for text in (name, value))
        out.append(
            f'  <rect x="{x:.1f}" width="{left + right:.1f}" height="{HEIGHT}" rx="4"'
            ' fill="#00695c"/>'
            f'<path d="M{x + 4:.1f} 0h{left - 4:.1f}v{HEIGHT}h-{left - 4:.1f}a4 4 0 0 1-4-4v-'
            f'{HEIGHT - 8}a4 4 0 0 1 4-4" fill="#455a64"/>'
            f'<text x="{x + left / 2:.1f}" y="14">{name}</text>'
            f'<text x="{x + left + right / 2:.1f}" y="14">{value}</text>'
        )
        x += left + right + GAP
    title = "; ".join(f"{name}: {value}" for name, value in badges)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{x - GAP:.0f}" height="{HEIGHT}"'
        f' role="img" aria-labelledby="title" fill="#ffffff" text-anchor="middle"'
        ' font-family="Verdana, DejaVu Sans, sans-serif" font-size="11">\n'
        f'  <title id="title">{title}</title>\n' + "\n".join(out) + "\n</svg>\n"
    )
