"""Recipes that come with the package, by their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nacre.core.errors import TrainError, reason

FOLDERS = (Path(__file__).parent / "recipes", Path(__file__).resolve().parents[2] / "recipes")  # of a wheel, a checkout


def bundled() -> Iterator[Path]:
    """Recipes inside the package, by name."""
    for folder in FOLDERS:
        if folder.is_dir():
            yield from sorted(folder.glob("*.toml"))
            return


def about(recipe: Path) -> str:
    """The first line of a recipe, which says what it is for.

    Raises TrainError for one that cannot be read.
    """
    try:
        with open(recipe, encoding="utf-8") as file:
            return file.readline().lstrip("# ").strip()
    except OSError as error:
        raise TrainError(f"{recipe} cannot be read ({reason(error)}); check the name") from error
    except UnicodeDecodeError as error:
        raise TrainError(f"{recipe} is not UTF-8 text; give a recipe") from error


def find(name: str) -> Path:
    """A recipe by its file, or by the name of one in the package. Raises TrainError."""
    if Path(name).is_file() or Path(name).suffix == ".toml":
        return Path(name)
    inside = {path.stem: path for path in bundled()}
    if name not in inside:
        known = ", ".join(inside)
        raise TrainError(f"there is no such recipe as {name}; give a file, or one that nacre recipes lists: {known}")
    return inside[name]
