"""Weight fixing by relative distances (WFN): a grid of values, a greedy assignment, and a pull towards fixed values."""

from pwfn.methods.wfn.assignment import Group, assign
from pwfn.methods.wfn.grid import centres, round_to_powers
from pwfn.methods.wfn.pull import Pull

__all__ = ["Group", "Pull", "assign", "centres", "round_to_powers"]
