"""Who may import whom: inward only, each library in its home, and no heavy package needed to code sound."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PACKAGE

PACKAGES = [  # whole ranks: a package imports lower ones, files inside a package one another
    {"core"},
    {"dsp", "format", "recipes"},
    {"io"},
    {"quantise", "entropy"},
    {"model"},
    {"codec"},
    {"music"},
    {"tools", "train", "link"},
    {"batch", "torch"},
    {"corpus"},
    {"evaluate"},
    {"cli"},
    {"__main__"},
    {"__init__"},
]
RANK = {package: rank for rank, packages in enumerate(PACKAGES) for package in packages}
HOME = {
    "torch": {"train", "torch", "evaluate/judges", "corpus/readers"},
    "onnx": {"train", "torch"},
    "onnxscript": {"train"},
    "safetensors": {"io/arrays", "train", "torch"},
    "lightning_fabric": {"train"},
    "tensorboard": {"train"},
    "onnxruntime": {"model/runtime", "evaluate/measures"},  # there for a published quality network, not for ours
    "constriction": {"entropy/range_coder"},
    "soundfile": {"io/audio", "io/reader"},
    "soxr": {"io/audio", "train/degrade"},
    "matplotlib": {"evaluate", "tools/inspect/picture"},
    "jinja2": {"evaluate"},
    "pesq": {"evaluate"},
    "speechmos": {"evaluate"},
    "distillmos": {"evaluate"},
    "xls_r_sqa": {"evaluate"},
    "visqol": {"evaluate"},
    "pystoi": {"evaluate"},
    "scipy": {"evaluate"},
    "jiwer": {"evaluate"},
    "pyrnnoise": {"evaluate/denoisers"},
    "noisereduce": {"evaluate/denoisers"},
    "webrtc_noise_gain": {"evaluate/denoisers"},
    "speexdsp_ns": {"evaluate/denoisers"},
    "pocketsphinx": {"evaluate"},
    "sklearn": {"tools/features"},  # for its tags, when it asks for them
    "pandas": {"tools/features"},  # data frames, where scikit-learn is told to give them
    "polars": {"tools/features"},
    "pyarrow": {"corpus/arrow"},
    "ray": {"corpus/engine"},
    "aiohttp": {"link/web"},
    "typer": {"cli", "batch"},
    "rich": {"cli", "batch", "corpus", "tools/demo", "train", "evaluate"},
    "numpy": {name for name, rank in RANK.items() if rank < RANK["batch"]} - {"core"}
    | {"core/types", "corpus", "evaluate", "torch"},
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
        if there == here == "tools" and where != "tools/html":  # none needs another, but for pages
            bad += [] if rest.split(".")[1] in ("html", *where.split("/")[1:2]) else [name]
        if there != here and RANK[there] >= RANK[here]:
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
        ("dsp/wave", "from nacre.format import file"),
        ("quantise/rvq", "from nacre.codec.codec import load"),
        ("codec/latents", "def f():\n    import nacre.train.loop"),
        ("train/loop", "from nacre.tools import demo"),
        ("train/loop", "import nacre"),
        ("core/units", "import numpy as np"),
        ("codec/codec", "from torch import nn"),
        ("model/bundle", "import onnxruntime"),
        ("train/nets/blocks", "import soxr"),
        ("train/nets/blocks", "import scipy.signal"),
        ("train/losses", "from distillmos import ConvTransformerSQAModel"),
        ("train/losses", "from nacre.evaluate import judges"),
        ("evaluate/report", "import onnxruntime"),
        ("tools/edit", "from nacre.tools.denoise import denoise"),
    ],
)
def test_table_finds_wrong_imports(where, source):
    assert wrong(where, source)


@pytest.mark.parametrize(
    ("where", "source"),
    [
        ("core/config", "from nacre.core.errors import BundleError"),
        ("train/loop", "from nacre.train.nets.blocks import Net"),
        ("train/degrade", "import soxr"),
        ("codec/codec", "from nacre.model import bundle as bundles"),
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
assert codec.latents(wave, 16_000).shape == (31, 8)
from nacre.cli.main import application
application([])
assert not {absent} & set(sys.modules), "a forbidden package came in"
"""


def test_coding_needs_no_heavy_package(tiny_model, environment):
    absent = {"torch", "scipy", "matplotlib", "jinja2", "onnx", "tensorboard", "pesq", "pystoi"}
    code = WITHOUT.replace("{absent}", repr(absent))
    command = [sys.executable, "-c", code, str(tiny_model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
