"""What is inside a `.nacre` file: sound, bits, latents, quality levels and damage over time.

    sound file -> encode --+
    .nacre file -----------+-> packets -> symbols -> bits (integer tables), latents -> Seen -> picture | page

The picture needs matplotlib, the page a browser; nothing here is needed to decode.
"""

from __future__ import annotations

from pathlib import Path

from nacre.core.errors import UsageError
from nacre.io import audio
from nacre.tools.inspect.page import page
from nacre.tools.inspect.picture import picture
from nacre.tools.inspect.seen import Group, Seen, look, look_at_sound

__all__ = ["Group", "Seen", "check_target", "look", "look_at_sound", "page", "picture", "write"]


def write(seen: Seen, target: str, overwrite: bool = False) -> None:
    """The picture to a .png, the page to a .html, whole or not at all; raises UsageError for another suffix."""
    suffix = check_target(target)
    data = page(seen).encode() if suffix == ".html" else picture(seen)
    with audio.output_file(target, overwrite) as file:
        file.write(data)


def check_target(target: str) -> str:
    """Its suffix; raises UsageError for one that cannot be written."""
    suffix = Path(target).suffix.lower()
    if suffix not in (".png", ".html"):
        raise UsageError(f"--output {target} must end in .png or .html; rename it")
    return suffix
