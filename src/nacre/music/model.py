"""A model of music: a folder with music.json and tables.npz. Its settings are those of `nacre.music.shape`."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nacre.core.errors import BundleError, UsageError, reason
from nacre.core.units import Layout
from nacre.dsp.blocks import FRAME, HALF
from nacre.model.bundle import MODELS
from nacre.music.shape import RATE_HZ
from nacre.music.symbols import MusicTables

NAME = "music-48k"
GROUP_FRAMES = 24  # 1.02 s
LAYOUT = Layout(RATE_HZ, FRAME, HALF, GROUP_FRAMES)
FORMAT = 1
FACTS, TABLES = "music.json", "tables.npz"
LARGEST_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class MusicModel:
    """Tables and what is known of them. `fingerprint` names them in files."""

    folder: Path
    name: str
    fingerprint: bytes
    tables: MusicTables
    facts: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> MusicModel:
        """Of a folder. Raises BundleError."""
        facts, path = _facts(folder / FACTS), folder / TABLES
        try:
            if path.stat().st_size > LARGEST_BYTES:
                raise BundleError(f"{path} is too large for the tables of a music model, over {LARGEST_BYTES} bytes")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({reason(error)}); copy the model again") from error
        if digest != facts.get("sha256"):
            hashed = f"hash {digest[:8]}, not {str(facts.get('sha256'))[:8]}"
            raise BundleError(f"{path} is damaged or of another model ({hashed}); copy the model again")
        return cls(folder, str(facts.get("name")), bytes.fromhex(digest[:8]), MusicTables.load(path), facts)


def _facts(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise BundleError(f"{path} is too large for the settings of a music model, over {LARGEST_BYTES} bytes")
        facts = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({reason(error)}); give the folder of a music model") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON; copy the model again") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise BundleError(f"{path} has another format than {FORMAT}, which this nacre reads; update nacre")
    return facts


def save(folder: Path, tables: Path, facts: dict[str, Any]) -> None:
    """Write music.json beside tables.npz, which is copied into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = tables.read_bytes()
    (folder / TABLES).write_bytes(data)
    facts = {"format": FORMAT, "name": NAME, "sha256": hashlib.sha256(data).hexdigest()} | facts
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def size_bytes(model: MusicModel) -> int:
    """Bytes of all files in its folder."""
    return sum(path.stat().st_size for path in model.folder.iterdir() if path.is_file())


def is_music(name: str | Path) -> bool:
    """Whether a model by this name, or in this folder, is one of music."""
    return _folder(name) is not None


@cache
def find(name: str | Path = NAME) -> MusicModel:
    """By the name of one in the package, or by its folder. Raises UsageError, BundleError."""
    if folder := _folder(name):
        return MusicModel.load(folder)
    raise UsageError(f"there is no such model of music as {name}; use {NAME}")


def _folder(name: str | Path) -> Path | None:
    for folder in (MODELS / str(name), Path(name)):
        if os.path.isfile(folder / FACTS):  # False where the name is none at all, too long say
            return folder
    return None
