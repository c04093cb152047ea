"""What CONTRIBUTING.md says of lengths: files that fit into a head, functions that fit onto a screen."""

from __future__ import annotations

import ast

import pytest
from conftest import PACKAGE

LONGEST_FILE, LONGEST_FUNCTION = 399, 45
LONGER = {"context_prior.py"}  # one network, which reads best in one place


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_lengths(path):
    text = path.read_text("utf-8")
    assert path.name in LONGER or text.count("\n") <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{node.name}: lines"
