"""What a study understood of its data and its networks before it computed, as study.json has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def understood(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return headings and sentences, each once: float networks of one study share their data."""
    records = card.get("understood")
    lines = [
        (str(line[0]), str(line[1]))
        for record in (records.values() if isinstance(records, dict) else ())
        for line in (record.get("lines", ()) if isinstance(record, dict) else ())
        if isinstance(line, list) and len(line) == 2
    ]
    return list(dict.fromkeys(lines))
