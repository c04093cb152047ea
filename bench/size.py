"""What `pip install nacre` puts on a disk, without torch: MB by package in a fresh environment."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

LIMIT_MB = 190
INSTALLER = ("pip", "setuptools", "wheel")
ROOT = Path(__file__).resolve().parent.parent

# Runs inside the fresh environment; a package's RECORD lists its libraries and compiled files too.
SIZES = """
import importlib.metadata as metadata, json
def size(path):
    return path.stat().st_size if path.is_file() else 0
print(json.dumps({
    f"{dist.name} {dist.version}": sum(size(dist.locate_file(file)) for file in dist.files or [])
    for dist in metadata.distributions()
}))
"""


def package_bytes(specs: list[str], scratch: Path) -> dict[str, int]:
    """Install `specs` (a wheel, or requirements) -> bytes by package, the installer itself left out."""
    venv.create(scratch / "env", with_pip=True)
    python = scratch / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *specs], check=True)
    answer = subprocess.run([python, "-c", SIZES], check=True, capture_output=True, text=True)
    sizes = json.loads(answer.stdout)
    return {name: size for name, size in sizes.items() if name.split()[0] not in INSTALLER}


def build_wheel(scratch: Path) -> str:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", scratch, ROOT]
    subprocess.run(command, check=True)
    return str(next(scratch.glob("*.whl")))


def main(
    specs: Annotated[list[str] | None, typer.Argument(help="a wheel or requirements; else our wheel")] = None,
) -> None:
    """Install into a temporary environment and add up every installed file."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        sizes = package_bytes(specs or [build_wheel(scratch)], scratch)
    total_mb = sum(sizes.values()) / 1e6
    table = Table("package", "MB", title="installed, without the installer")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{size / 1e6:.1f}")
    console = Console()
    console.print(table)
    torch = any(name.split()[0] == "torch" for name in sizes)
    warning = "; torch came along, it must not" if torch else ""
    console.print(f"{total_mb:.1f} MB in all, limit {LIMIT_MB} MB{warning}")
    raise typer.Exit(1 if torch or total_mb > LIMIT_MB else 0)


if __name__ == "__main__":
    typer.run(main)
