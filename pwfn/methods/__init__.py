"""The methods a trial can run, by the name its configuration gives."""

from collections.abc import Callable, Mapping

from pwfn.methods.gpfq.method import Gpfq
from pwfn.methods.gpfq.msq import Msq
from pwfn.methods.kmeans.method import Kmeans
from pwfn.methods.pwfn.method import Pwfn
from pwfn.methods.qat.method import Qat
from pwfn.methods.rounds import Fixing, Method, RoundRecord, State, run_rounds
from pwfn.methods.wfn.method import Wfn
from pwfn.task import Task

METHODS: Mapping[str, Callable[[Task], Method]] = {
    "pwfn": Pwfn,
    "gpfq": Gpfq,
    "msq": Msq,
    "wfn": Wfn,
    "kmeans": Kmeans,
    "qat": Qat,
}

__all__ = ["METHODS", "Fixing", "Method", "RoundRecord", "State", "run_rounds"]
