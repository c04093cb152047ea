"""What CONTRIBUTING.md says of errors: each is one sentence, written where it is raised."""

from __future__ import annotations

import ast

import pytest
from conftest import PACKAGE

ERRORS = {
    "NacreError",
    "UsageError",
    "AudioError",
    "BundleError",
    "StreamError",
    "TrainError",
    "PeerError",
    "ForeignError",
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_errors_are_one_sentence(path):
    for call in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ERRORS:
            place = f"line {call.lineno}: {ast.unparse(call)}"
            assert (len(call.args), call.keywords) == (1, []), place
            assert not ast.unparse(call.args[0]).rstrip("'\"").endswith("."), place
