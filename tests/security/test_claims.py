"""The threat model's claims and the tests that prove them are the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/security.md"
_ROW = re.compile(r"\| ([A-Z]\d+) \| (.+) \| (.+) \|")
_PROOF = re.compile(r"`([a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def claims() -> Iterator[tuple[str, str]]:
    """Each claim's id, and what is said of its proof."""
    for line in DOCUMENT.read_text().splitlines():
        if (match := _ROW.fullmatch(line)) is not None:
            yield match[1], match[3]


def proofs() -> set[tuple[str, str]]:
    """(file below tests, test) of every claim."""
    found = {proof for _, text in claims() for proof in _PROOF.findall(text)}
    return {(file if "/" in file else f"security/{file}", name) for file, name in found}


def named_in(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, functions) and node.name.startswith("test_")
    }


def test_every_claim_has_an_id_of_its_own_and_a_proof_or_says_that_it_has_none() -> None:
    ids = [claim for claim, _ in claims()]
    assert len(ids) > 40
    assert len(set(ids)) == len(ids)
    for claim, text in claims():
        assert _PROOF.search(text) or text.startswith("not tested: "), claim


def test_every_proof_is_a_test() -> None:
    missing = [(f, name) for f, name in proofs() if name not in named_in(ROOT / "tests" / f)]
    assert missing == []


def test_every_test_here_proves_a_claim() -> None:
    proved = proofs()
    for path in Path(__file__).parent.glob("test_*.py"):
        if path != Path(__file__):
            idle = {
                name for name in named_in(path) if (f"security/{path.name}", name) not in proved
            }
            assert idle == set(), path.name
