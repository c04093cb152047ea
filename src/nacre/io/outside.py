"""Sound of kinds that only ffmpeg reads: films, phones' recordings, AAC, WMA. Nothing is fetched, one file is read."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SETTINGS = ("-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe")
TAKEN = ("-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-y")
LONGEST_WORD = 200


def program() -> str | None:
    """Where ffmpeg is, None where it is not on the path."""
    return shutil.which("ffmpeg")


def to_wav(ffmpeg: str, source: str | Path, target: str) -> str | None:
    """The first sound of a file as float WAV in `target`; -> what ffmpeg complains of, None if all went well."""
    names = (
        b"-i",
        b"file:" + os.fsencode(os.path.abspath(source)),
        *map(os.fsencode, TAKEN),
        b"file:" + os.fsencode(target),
    )
    done = subprocess.run([ffmpeg, *SETTINGS, *names], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode == 0 and not lines:
        return None
    return lines[-1].rsplit("] ")[-1][:LONGEST_WORD] if lines else f"exit code {done.returncode}"
