"""The chunk of tags at the end of a file: what it says of itself, and when it was changed; see docs/format.md."""

from __future__ import annotations

import json
from binascii import crc_hqx

MAGIC = b"naTg"
TAIL_BYTES = 10  # check value, size, magic
MOST_BYTES = 1 << 16


def pack_tags(tags: dict[str, str], modified_s: float | None) -> bytes:
    """Names and texts, and seconds since 1970 -> chunk. Texts are cut until all fit into 64 kB."""
    longest = MOST_BYTES
    while True:
        facts: dict[str, object] = {name: text[:longest] for name, text in tags.items()}
        if modified_s is not None:
            facts["modified"] = round(modified_s, 3)
        content = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        if len(content) <= MOST_BYTES:
            break
        longest //= 2
    return content + crc_hqx(content, 0).to_bytes(2, "little") + len(content).to_bytes(4, "little") + MAGIC


def unpack_tags(data: bytes) -> tuple[dict[str, str], float | None, int]:
    """What the chunk that bytes end with holds, and its size; ({}, None, 0) where there is none that is whole."""
    nothing: tuple[dict[str, str], float | None, int] = ({}, None, 0)
    size = int.from_bytes(data[-8:-4], "little")
    if data[-4:] != MAGIC or not 0 < size <= min(MOST_BYTES, len(data) - TAIL_BYTES):
        return nothing
    content, check = data[-TAIL_BYTES - size : -TAIL_BYTES], data[-TAIL_BYTES:-8]
    if crc_hqx(content, 0).to_bytes(2, "little") != check:
        return nothing
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        return nothing
    modified = facts.pop("modified", None)
    known = isinstance(modified, (int, float)) and not isinstance(modified, bool) and abs(modified) < 1 << 40
    tags = {name: text for name, text in facts.items() if isinstance(text, str)}
    return tags, float(modified) if known else None, size + TAIL_BYTES
