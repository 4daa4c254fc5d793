"""The compressed network as a small file: written, read, checked, measured (format: `docs/format.md`)."""

from pwfn.export.metadata import ModelMetadata, describe_network
from pwfn.export.network import encode_network, encode_state, load, load_state

__all__ = ["ModelMetadata", "describe_network", "encode_network", "encode_state", "load", "load_state"]
