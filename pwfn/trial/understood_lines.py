"""What was understood of data and network, as it is recorded and shown. Needs no torch: drivers use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Understood = dict[str, Any]
"""JSON: `data` and `network` as records, and `lines` of a heading and a sentence each."""


def format_understood(found: Mapping[str, Any]) -> str:
    """Write the lines of `understand` below each other, their headings in a column."""
    width = max(len(heading) for heading, _ in found["lines"])
    return "\n".join(f"{heading:<{width}}  {text}" for heading, text in found["lines"])
