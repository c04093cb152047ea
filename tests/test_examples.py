"""Every example runs as its first lines say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from nacre.io import audio

EXAMPLES = Path(__file__).parent.parent / "examples"
LINES = {
    "folder.py": ["calls", "out"],
    "link.py": ["calls/a.wav", "heard.wav", "--loss", "0.2"],
    "nearest.py": ["calls/a.wav", "calls"],
}
SAYS = {"folder.py": "bytes became", "link.py": "15 packets", "nearest.py": "0.00  calls/a.wav"}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_examples_run(name, tmp_path, monkeypatch, capsys, speech):
    (tmp_path / "calls").mkdir()
    for index, letter in enumerate("ab"):
        audio.write(tmp_path / "calls" / f"{letter}.wav", speech[None, 16_000 * (index + 1) :][:, :5000], 16_000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *LINES[name]])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert SAYS[name] in capsys.readouterr().out
