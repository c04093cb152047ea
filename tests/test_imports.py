"""Who may import whom: inward only, each library in its home, and no heavy package needed to code sound."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PACKAGE

RANK = dict.fromkeys(["errors", "units", "config", "npz", "pipes", "blas"], 0)
RANK |= dict.fromkeys(
    ["audio", "analysis", "model", "quantise", "priors", "entropy", "container", "bundle", "rate", "mel", "stereo"], 1
)
RANK |= {"asking": 0.5, "context": 1, "refine": 1, "coding": 1.5, "codec": 2, "page": 2} | dict.fromkeys(
    ["stream", "generate", "sampling", "restore", "evaluate", "train", "demo"], 3
)
RANK |= dict.fromkeys(["features", "view"], 3) | {"continuation": 1}
RANK |= {"batch": 3.5, "jobs": 3.6, "cli": 4, "__main__": 5, "__init__": 6}
HOME = {
    "torch": {"train", "evaluate/judges"},
    "onnx": {"train"},
    "onnxscript": {"train"},
    "safetensors": {"train"},
    "tensorboard": {"train"},
    "onnxruntime": {"model", "evaluate/measures"},  # there for a published quality network, not for ours
    "constriction": {"entropy"},
    "soundfile": {"audio"},
    "soxr": {"audio", "train/degrade"},
    "matplotlib": {"evaluate", "view"},
    "jinja2": {"evaluate"},
    "pesq": {"evaluate"},
    "speechmos": {"evaluate"},
    "distillmos": {"evaluate"},
    "xls_r_sqa": {"evaluate"},
    "visqol": {"evaluate"},
    "pystoi": {"evaluate"},
    "scipy": {"evaluate"},
    "jiwer": {"evaluate"},
    "pocketsphinx": {"evaluate"},
    "sklearn": {"features"},  # for its tags, when it asks for them
    "typer": {"cli", "batch"},
    "rich": {"cli", "batch", "demo", "train", "evaluate"},
    "numpy": {
        "audio",
        "analysis",
        "model",
        "quantise",
        "priors",
        "entropy",
        "container",
        "bundle",
        "codec",
        "page",
        "context",
        "coding",
    }
    | {"blas", "npz", "rate", "mel", "stereo", "continuation", "asking", "refine"}
    | {room for room, rank in RANK.items() if rank == 3},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    """Path inside the package without suffix, such as train/loop."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def imports(source: str) -> list[str]:
    """Dotted names of all that a source imports, wherever in it; `from a import b` gives a.b."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def wrong(where: str, source: str) -> list[str]:
    """Imports that a file at `where` may not have."""
    here = where.split("/")[0]
    bad = []
    for name in imports(source):
        top, _, rest = name.partition(".")
        if top != "nacre":
            known = top in sys.stdlib_module_names or top == "tomli"
            if not (HOME[top] & {here, where} if top in HOME else known):
                bad.append(name)
            continue
        if rest == "__version__":
            continue
        there = rest.split(".")[0] if rest.split(".")[0] in RANK else "__init__"
        inside = there == here or (RANK[there] == RANK[here] == 0)
        if not inside and RANK[there] >= RANK[here]:
            bad.append(name)
    return bad


def test_every_file_has_a_rank():
    assert {place(path).split("/")[0] for path in FILES} <= set(RANK)
    assert len(FILES) > 15


@pytest.mark.parametrize("path", FILES, ids=place)
def test_imports_go_inward_and_libraries_stay_home(path):
    assert wrong(place(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("audio", "from nacre import container"),
        ("quantise", "from nacre.codec import load"),
        ("codec", "def f():\n    import nacre.train.loop"),
        ("train/loop", "from nacre import demo"),
        ("train/loop", "import nacre"),
        ("units", "import numpy as np"),
        ("codec", "from torch import nn"),
        ("bundle", "import onnxruntime"),
        ("train/nets", "import soxr"),
        ("train/nets", "import scipy.signal"),
        ("train/losses", "from distillmos import ConvTransformerSQAModel"),
        ("train/losses", "from nacre.evaluate import judges"),
        ("evaluate/report", "import onnxruntime"),
    ],
)
def test_table_finds_wrong_imports(where, source):
    assert wrong(where, source)


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("config", "from nacre.errors import BundleError"),
        ("train/loop", "from nacre.train.nets import Net"),
        ("train/degrade", "import soxr"),
        ("codec", "from nacre import bundle as bundles"),
    ],
)
def test_table_allows_the_road(where, source):
    assert wrong(where, source) == []


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError("No module named " + name, name=name)

sys.meta_path.insert(0, Absent())
import numpy as np
import nacre

assert "nacre.cli" not in sys.modules
codec = nacre.load(sys.argv[1])
wave = np.sin(np.arange(9000, dtype=np.float32))
out, rate_hz = codec.decode(codec.encode(wave, 16_000, quality=50))
assert out.shape == (1, 9000), out.shape
assert codec.latents(wave, 16_000).shape == (29, 8)
import nacre.cli
assert not {absent} & set(sys.modules), "a forbidden package came in"
"""


def test_coding_needs_no_heavy_package(tiny_model, environment):
    absent = {"torch", "scipy", "matplotlib", "jinja2", "onnx", "safetensors", "tensorboard", "pesq", "pystoi"}
    code = WITHOUT.replace("{absent}", repr(absent))
    command = [sys.executable, "-c", code, str(tiny_model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
