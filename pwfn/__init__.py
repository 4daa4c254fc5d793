"""Finds how few distinct weight values a trained image classifier needs, and at what accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pwfn.export import load

__all__ = ["load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `load` only when it is used, so that `import pwfn` needs no torch."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pwfn.export import load

    return load
