"""What a proposal's file holds, checked when it is read: it decides what a trial computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Number = Annotated[int, Field(ge=0)]


class _Proposal(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    trial_id: str
    number: Number | None
    """None of a baseline, which no search has proposed."""
    params: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    """Of a trial by hand, in the place of parameters."""
    attributes: dict[str, Any] = {}
    replicate: Annotated[int, Field(ge=1)] | None = None
    driver: Number | None = None


def check_proposal(proposal: Mapping[str, Any], trial_id: str) -> None:
    """Raise ValueError, in one line, unless this is the proposal of a trial."""
    try:
        read = _Proposal.model_validate(proposal)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if read.trial_id != trial_id:
        raise ValueError(f"trial_id is {read.trial_id!r}, but the file is named after trial {trial_id}")
    if (read.params is None) == (read.config is None):
        raise ValueError("there must be params, or config of a trial by hand, and not both")
    if read.replicate is None and read.number is not None and trial_id != f"{read.number:04d}":
        raise ValueError(f"number is {read.number}, but trial {trial_id} has another one")
