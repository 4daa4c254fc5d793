"""What a trial occupies, and how many of them run at once."""

from __future__ import annotations

from typing import NamedTuple

import ray
from rich.console import Console

from pwfn.config import ResourcesConfig
from pwfn.errors import UserError
from pwfn.space.space import SearchSpace


def resources_of_trial(resources: ResourcesConfig) -> dict[str, float]:
    """Return what Tune reserves for a trial's own process.

    A trial of several workers only waits for them: it takes no CPU, or trials would hold what their workers need.
    Tune refuses a request of nothing, hence one byte of memory.
    """
    if resources.workers > 1:
        return {"CPU": 0, "memory": 1}
    return of_worker(resources)


def of_worker(resources: ResourcesConfig) -> dict[str, float]:
    """Return what one worker occupies, in Ray's names."""
    gpus = {"GPU": resources.gpus_per_worker} if resources.gpus_per_worker > 0 else {}
    return {"CPU": resources.cpus_per_worker, **gpus, **resources.custom}


def num_slots(space: SearchSpace) -> int:
    """Count the trials that fit on the nodes that are there, at most `search.max_concurrent`; at least 1."""
    total = ray.cluster_resources()
    resources = space.resources
    each = of_worker(resources)
    fitting = min(int(total.get(name, 0) // (amount * resources.workers)) for name, amount in each.items())
    limit = space.search.max_concurrent
    return max(1, fitting if limit is None else min(fitting, limit))


def check_resources(resources: ResourcesConfig) -> None:
    """Raise UserError if no trial can start on the nodes that are there: Ray would wait without a word."""
    if (found := _lack(resources)) is not None:
        raise UserError(f"{found.words}; {found.cure}")


def slots_asked_for(space: SearchSpace, address: str | None, console: Console) -> int:
    """Count the trials that shall run at once: those that fit on the nodes that are there.

    Of a cluster that is joined, `search.max_concurrent` asks for just so many, fit or not: the trials that wait for
    room make an autoscaler start nodes. Ray (2.60) does not tell how many it may start.

    Raises:
        UserError: no trial can start, and none is asked to wait for nodes.
    """
    found, limit = _lack(space.resources), space.search.max_concurrent
    if address is None or limit is None:
        if found is not None:
            on_demand = "" if address is None else ", or ask for nodes on demand with --set search.max_concurrent=..."
            raise UserError(f"{found.words}; {found.cure}{on_demand}")
        return num_slots(space)
    if found is not None:
        console.print(f"{found.words}: waiting for nodes that start on demand", soft_wrap=True)
    return limit


class _Lack(NamedTuple):
    """What a trial needs and the nodes that are there do not have, in words, and the fields that say so."""

    words: str
    cure: str


def _lack(resources: ResourcesConfig) -> _Lack | None:
    total = ray.cluster_resources()
    for name, amount in of_worker(resources).items():
        needed = amount * resources.workers
        if total.get(name, 0) < needed:
            field = {"CPU": "cpus_per_worker", "GPU": "gpus_per_worker"}.get(name, f"custom.{name}")
            return _Lack(
                f"a trial needs {needed:g} {name} (resources.workers={resources.workers} times "
                f"resources.{field}={amount:g}), but the cluster has {total.get(name, 0):g}",
                f"try --set resources.{field}=... or --set resources.workers=...",
            )
    return None
