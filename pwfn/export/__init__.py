"""The compressed network as a small file: written, read, checked, measured (format: `docs/format.md`)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pwfn.export.contents import load_state
    from pwfn.export.metadata import ModelMetadata, describe_network
    from pwfn.export.network import encode_network, load
    from pwfn.export.state import encode_state

__all__ = ["ModelMetadata", "describe_network", "encode_network", "encode_state", "load", "load_state"]

_MODULES = {
    "ModelMetadata": "metadata",
    "describe_network": "metadata",
    "encode_network": "network",
    "encode_state": "state",
    "load": "network",
    "load_state": "contents",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: `load_state` takes torch alone, `load` timm as well."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
