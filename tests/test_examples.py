"""Every example runs as its first lines say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from nacre.corpus.coders import Making
from nacre.corpus.run import Request, run_corpus
from nacre.corpus.sources import Wanted, open_source
from nacre.io import audio

EXAMPLES = Path(__file__).parent.parent / "examples"
LINES = {
    "folder.py": ["calls", "out"],
    "link.py": ["calls/a.wav", "heard.wav", "--loss", "0.2"],
    "nearest.py": ["calls/a.wav", "calls"],
    "spot_words.py": ["latents", "--epochs", "2"],
    "token_model.py": ["tokens", "--epochs", "2"],
}
SAYS = {"folder.py": "bytes became", "link.py": "15 packets", "nearest.py": "0.00  calls/a.wav"}
SAYS |= {"spot_words.py": "words it never heard are right", "token_model.py": "test: "}
SHARDS = {"spot_words.py": "latents", "token_model.py": "tokens"}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_examples_run(name, tmp_path, monkeypatch, capsys, speech):
    (tmp_path / "calls").mkdir()
    for index, letter in enumerate("ab"):
        audio.write(tmp_path / "calls" / f"{letter}.wav", speech[None, 16_000 * (index + 1) :][:, :5000], 16_000)
    monkeypatch.chdir(tmp_path)
    if name in SHARDS:
        pytest.importorskip("torch")
        pytest.importorskip("pyarrow")
        make_shards(SHARDS[name], speech)
    monkeypatch.setattr(sys, "argv", [name, *LINES[name]])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert SAYS[name] in capsys.readouterr().out


def make_shards(what: str, speech) -> None:
    """Twelve recordings with labels as a corpus in the current folder."""
    lines = ["audio,label"]
    for index in range(12):
        audio.write(f"{index}.wav", speech[None, 4000 * index :][:, :6000], 16_000)
        lines.append(f"{index}.wav,{'ab'[index % 2]}")
    Path("list.csv").write_text("\n".join(lines))
    options = {"level": None}
    source = open_source("list.csv", Wanted(keep=("label",)))
    assert run_corpus(Request(source, Making(what, "speech-16k", options), what, jobs=1, quiet=True)).good
