"""One real example of each experiment of docs/lab.md as spectrograms, from a clip inside the package."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import RATE_HZ

import nacre
from nacre.io import audio
from nacre.tools import edit, restore
from nacre.tools import sample as sampling
from nacre.tools.denoise import denoise

CLIPS = Path(nacre.__file__).parent / "clips"
SECONDS = 4.0
GAPS = [(0.9, 0.96), (1.7, 1.76), (2.4, 2.52), (3.1, 3.16)]


def main(
    out: Annotated[Path, typer.Argument(help="picture, PNG")],
    noise: Annotated[Path, typer.Option(help="a recording of noise")],
    model: Annotated[str, typer.Option(help="bundled model or a model folder")] = "speech-16k",
) -> None:
    """Needs matplotlib. Noise is mixed in at 5 dB."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    codec, samples = nacre.load(model), round(SECONDS * RATE_HZ)
    voices = {name: audio.read(CLIPS / f"{name}.flac")[0][0][:samples] for name in ("english", "german")}
    wave = voices["english"]
    hiss = np.resize(audio.read(noise)[0][0], samples)
    noisy = wave + np.float32(10 ** (-5 / 20) * wave.std() / hiss.std()) * hiss
    holes = np.array(wave)
    for start, stop in GAPS:
        holes[round(start * RATE_HZ) : round(stop * RATE_HZ)] = 0
    panels = {
        "recording": wave,
        "in noise, 5 dB": noisy,
        "denoised": denoise(codec, noisy, RATE_HZ),
        "with gaps of 60 and 120 ms": holes,
        "concealed": restore.conceal(codec, holes, RATE_HZ, GAPS),
        "said again, speed 0.8": edit.resynthesise(codec, wave, RATE_HZ, speed=0.8),
        "said again, 4 semitones higher": edit.resynthesise(codec, wave, RATE_HZ, semitones=4.0),
        "half-way to a German voice": list(edit.between(codec, (wave, RATE_HZ), (voices["german"], RATE_HZ), 3))[1],
        "drawn from the prior, seed 7": sampling.sample(codec, SECONDS, seed=7).wave,
    }
    figure, axes = pyplot.subplots(3, 3, figsize=(13, 8), layout="constrained", sharey=True)
    for axis, (title, sound) in zip(axes.flat, panels.items(), strict=True):
        floor = np.random.default_rng(0).normal(0, 1e-7, np.size(sound))  # a spectrogram in dB wants no zeros
        axis.specgram(np.ravel(sound) + floor, NFFT=512, noverlap=384, Fs=RATE_HZ, vmin=-130, vmax=-40, cmap="magma")
        axis.set(title=title, yticks=[0, 2000, 4000, 6000, 8000], yticklabels=["0", "2", "4", "6", "8 kHz"])
    picture = io.BytesIO()
    figure.savefig(picture, dpi=80)
    Image.open(picture).convert("RGB").quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    typer.run(main)
