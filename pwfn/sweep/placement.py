"""What a trial occupies on the cluster, and how many trials run at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import ray
from rich.console import Console

from pwfn.config import ResourcesConfig
from pwfn.errors import UserError
from pwfn.space.space import SearchSpace

UNITS = 10_000
"""Ray counts resources in ten-thousandths."""


def resources_of_trial(resources: ResourcesConfig) -> dict[str, float]:
    """Return what Tune reserves for the process of a trial.

    The process of a trial with several workers only waits for them, so it reserves no CPU; otherwise trials would hold
    the CPUs that their workers need. Tune refuses a request for nothing, so the request is one byte of memory.
    """
    if resources.workers > 1:
        return {"CPU": 0, "memory": 1}
    return of_worker(resources)


def of_worker(resources: ResourcesConfig) -> dict[str, float]:
    """Return what one worker occupies, by Ray's names of resources."""
    gpus = {"GPU": resources.gpus_per_worker} if resources.gpus_per_worker > 0 else {}
    return {"CPU": resources.cpus_per_worker, **gpus, **resources.custom}


def num_slots(space: SearchSpace) -> int:
    """Count the trials that fit on the present nodes at once: at most `search.max_concurrent`, at least 1."""
    resources = space.resources
    fitting = _num_workers(resources) // resources.workers
    limit = space.search.max_concurrent
    return max(1, fitting if limit is None else min(fitting, limit))


def task_options(resources: ResourcesConfig) -> dict[str, Any]:
    """What a task occupies, as Ray's options for it name that."""
    amounts = of_worker(resources)
    return {"num_cpus": amounts.pop("CPU"), "num_gpus": amounts.pop("GPU", 0), "resources": amounts}


def units(resources: Mapping[str, float]) -> dict[str, int]:
    """Amounts as Ray counts them: whole numbers of ten-thousandths."""
    return {name: round(UNITS * amount) for name, amount in resources.items()}


def num_fitting(resources: ResourcesConfig, node: Mapping[str, int]) -> int:
    """Count the workers that one node holds, given its `units`: each has all it needs there, and one GPU at most.

    Of 8 GPUs, workers with 0.6 each get one per GPU, although 13 times 0.6 is less than 8.
    """
    counts = []
    for name, needed in units(of_worker(resources)).items():
        has = node.get(name, 0)
        counts.append((has // UNITS) * (UNITS // needed) if name == "GPU" and needed < UNITS else has // needed)
    return min(counts)


def _num_workers(resources: ResourcesConfig) -> int:
    """Count the workers that the present nodes hold together."""
    return sum(num_fitting(resources, units(node["Resources"])) for node in ray.nodes() if node["Alive"])


def check_resources(resources: ResourcesConfig) -> None:
    """Raise UserError if no trial fits on the present nodes; Ray would wait for ever without saying so."""
    if (found := _lack(resources)) is not None:
        raise UserError(f"{found.words}; {found.cure}")


def slots_asked_for(space: SearchSpace, address: str | None, console: Console) -> int:
    """Return how many trials shall run at once: those that fit on the present nodes.

    On a cluster that was joined, `search.max_concurrent` is taken as it is, whether so many fit or not, because trials
    that wait for room make an autoscaler start nodes, and Ray (2.60) does not say how many nodes that may be.

    Raises:
        UserError: no trial can start, and `search.max_concurrent` does not ask to wait for nodes.
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
    """What a trial needs and the present nodes do not have, in words, and the fields that could be changed."""

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
    found = _num_workers(resources)
    if found < resources.workers:
        each = ", ".join(f"{amount:g} {name}" for name, amount in of_worker(resources).items())
        return _Lack(
            f"a trial needs {resources.workers} times {each}, each on one node, but the cluster has room for {found}",
            "try --set resources.cpus_per_worker=..., resources.gpus_per_worker=... or resources.workers=...",
        )
    return None
