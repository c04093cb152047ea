"""What the README tells people to type works as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HUNG_S

import nacre

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CLIPS = Path(nacre.__file__).parent / "clips"


def block(mark: str, language: str) -> str:
    """The first code block in this language behind <!-- mark -->."""
    found = re.search(rf"<!-- {mark} -->\n```{language}\n(.*?)```", README, re.DOTALL)
    assert found, (mark, language)
    return found[1]


def test_python_example_runs() -> None:
    names: dict[str, object] = {}
    exec(block("tested", "python"), names)
    assert names["decoded"].shape == (1, 48_000)  # type: ignore[attr-defined]
    assert names["latents"].shape[1] == 64  # type: ignore[attr-defined]


@pytest.fixture
def shell(tmp_path: Path):
    """A folder with what the README's examples expect, and `nacre` on the path."""
    import soundfile

    wave, rate_hz = soundfile.read(CLIPS / "dutch.flac")
    soundfile.write(tmp_path / "talk.wav", wave, rate_hz)
    soundfile.write(tmp_path / "song.flac", wave, rate_hz)
    (tmp_path / "calls").mkdir()
    for name in ("english", "german"):
        shutil.copy(CLIPS / f"{name}.flac", tmp_path / "calls")
    command = tmp_path / "bin" / "nacre"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nacre "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"

    def run(script: str) -> subprocess.CompletedProcess[str]:
        options = {"cwd": tmp_path, "env": os.environ | {"PATH": path}, "capture_output": True, "text": True}
        return subprocess.run(["bash", "-euo", "pipefail", "-c", script], **options, timeout=HUNG_S)

    return run


@pytest.mark.slow
def test_command_examples_run(shell, tmp_path: Path) -> None:
    done = shell(block("tested", "bash"))
    assert done.returncode == 0, done.stderr
    again = (tmp_path / "again.wav").stat().st_size
    assert again == (tmp_path / "back.wav").stat().st_size
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["english.nacre", "german.nacre"]


@pytest.mark.slow
def test_two_terminals_talk(shell, tmp_path: Path) -> None:
    import soundfile

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:  # another call may be on the default port
        line.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{line.getsockname()[1]}"
    script = block("call", "bash").replace("127.0.0.1:5004 talk", f"{at} talk")
    done = shell(script.replace("nacre receive", f"nacre receive --listen {at}"))
    assert done.returncode == 0, done.stderr
    spoken, heard, call = (soundfile.info(tmp_path / name).duration for name in ("talk.wav", "heard.wav", "call.wav"))
    assert heard == pytest.approx(spoken, abs=1e-4)
    assert call > spoken / 2
    assert "reports came back" in done.stderr


@pytest.mark.slow
def test_demo_command_runs(shell, tmp_path: Path) -> None:
    command = block("demo command", "bash")
    assert command.rstrip().endswith("&& .venv/bin/nacre demo")
    done = shell("nacre demo")  # the rest of the line is an installation
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "nacre-demo" / "index.html").stat().st_size > 100_000


def test_recipes_named_in_documents_exist() -> None:
    texts = README + (ROOT / "docs" / "training.md").read_text()
    for name in set(re.findall(r"recipes/[\w-]+\.toml", texts)):
        assert (ROOT / name).is_file(), name
    for name in set(re.findall(r"\]\(((?:docs|src)/[^)#]+)\)", README)):
        assert (ROOT / name).exists(), name


@pytest.mark.slow
def test_archive_guide_runs_as_written(shell, tmp_path: Path) -> None:
    (tmp_path / "src").symlink_to(ROOT / "src")
    guide = (ROOT / "docs" / "guides" / "archive.md").read_text()
    blocks = re.findall(r"<!-- tested(?:: (\d))? -->\n```bash\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 5
    for code, script in blocks:
        done = shell(script)
        assert done.returncode == int(code or 0), (script, done.stderr)
    names = ["1998/tapes/Rede", "1998/tapes/interview", "phone/cut", "phone/note"]
    for folder, suffix in (("coded", ".nacre"), ("listen", ".wav")):
        found = sorted(path.relative_to(tmp_path / folder) for path in (tmp_path / folder).rglob(f"*{suffix}"))
        assert [str(path.with_suffix("")) for path in found] == names
    report = (tmp_path / "coded.csv").read_text()
    assert report.count(",done,") == 3
    assert report.count(",incomplete,") == 1


@pytest.mark.slow
def test_corpus_guide_runs_as_written(shell, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("ray")
    pytest.importorskip("torch")
    (tmp_path / "src").symlink_to(ROOT / "src")
    guide = (ROOT / "docs" / "guides" / "corpus.md").read_text()
    blocks = re.findall(r"<!-- tested(?:: (\d|python))? -->\n```(?:bash|python)\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 9
    for code, script in blocks:
        if code == "python":
            (tmp_path / "block.py").write_text(script)
            script = f'"{sys.executable}" block.py'
        done = shell(script)
        assert done.returncode == int(code if code == "1" else 0), (script, done.stderr)
    assert "broken.wav" in (tmp_path / "latents" / "errors.csv").read_text()
