"""The home of pyarrow, which is an extra: tables are read and written through here."""

from __future__ import annotations

from typing import Any

from nacre.core.errors import UsageError


def arrow() -> Any:
    """pyarrow with its Parquet part. Raises UsageError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise UsageError("Parquet and Arrow files need pyarrow; pip install 'nacre[corpus]'") from error
    return pyarrow
