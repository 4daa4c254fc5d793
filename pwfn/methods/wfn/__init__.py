"""Weight fixing with relative distances (WFN): the grid, the greedy assignment, the pull towards fixed values."""

from pwfn.methods.wfn.assignment import Group, assign
from pwfn.methods.wfn.grid import centres, round_to_powers
from pwfn.methods.wfn.pull import Pull

__all__ = ["Group", "Pull", "assign", "centres", "round_to_powers"]
