"""The methods a trial can run, by the name its configuration gives."""

from collections.abc import Mapping

from pwfn.methods.pwfn import pwfn
from pwfn.methods.records import Method, RoundRecord, State

METHODS: Mapping[str, Method] = {"pwfn": pwfn}

__all__ = ["METHODS", "Method", "RoundRecord", "State"]
