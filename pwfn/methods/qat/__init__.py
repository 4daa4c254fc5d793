"""Straight-through training of one shared codebook: the method, its values, and which weight takes which."""

from pwfn.methods.qat.method import Qat

__all__ = ["Qat"]
