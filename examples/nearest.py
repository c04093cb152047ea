"""Find the recording that sounds most like another, by latents: python examples/nearest.py ONE.wav FOLDER."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from nacre.tools.features import from_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    paths = sorted(path for path in given.folder.iterdir() if path.suffix.lower() in {".wav", ".flac", ".ogg", ".mp3"})
    rows = np.stack([from_file(path, "latent", "stats") for path in [given.one, *paths]])
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)  # every column weighs the same
    away = np.linalg.norm(rows[1:] - rows[0], axis=1)
    for place in np.argsort(away)[:5].tolist():
        print(f"{away[place]:8.2f}  {paths[place]}")


if __name__ == "__main__":
    main()
