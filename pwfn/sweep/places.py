"""Places where trials run, a node or a GPU of it, and which of them are left alone because they failed."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple, NoReturn

import ray

from pwfn.config import ResourcesConfig
from pwfn.sweep.placement import num_fitting, units

MOST_FAILURES = 2
"""A place that has failed so often is left alone, whichever trials ran there."""
OF_NODES = frozenset({"loader"})
"""Classes of failures that are a node's, whatever GPU the process holds."""
OF_NOBODY = frozenset({"network", "replicas"})
"""Classes of failures that do not say which of several places is at fault."""
NODE_ID = "ray.io/node-id"
"""The label by which Ray knows each node."""


class Place(NamedTuple):
    """A node, or some GPUs of it."""

    node: str
    """Ray's id of the node."""
    gpus: tuple[str, ...]
    """Ids of the GPUs on that node; none: the whole node."""
    name: str
    """For people."""

    @property
    def whole_node(self) -> Place:
        """The node without regard to its GPUs."""
        return Place(self.node, (), self.name.partition(", GPU ")[0])

    def is_in(self, other: Place) -> bool:
        """Whether this is that place, or a GPU of that node."""
        return self.node == other.node and (not other.gpus or bool(set(self.gpus) & set(other.gpus)))


def here() -> Place:
    """The place of this process: the GPUs that Ray gave it, or its node."""
    context = ray.get_runtime_context()
    gpus = tuple(context.get_accelerator_ids().get("GPU", ()))
    name = f"node {ray.util.get_node_ip_address()} ({socket.gethostname()}, {context.get_node_id()[:8]})"
    return Place(context.get_node_id(), gpus, f"{name}, GPU {', '.join(gpus)}" if gpus else name)


class Failures:
    """What failed where. A trial goes on elsewhere after a failure; a place that failed twice gets no trial at all."""

    def __init__(self) -> None:
        self._found: list[tuple[Place, str, str, str]] = []

    def note(self, place: Place, trial_id: str, failure_class: str, message: str) -> Place:
        """Note a failure and return the place that is held responsible."""
        blamed = place.whole_node if failure_class in OF_NODES else place
        self._found.append((blamed, trial_id, failure_class, message))
        return blamed

    def last(self, trial_id: str) -> tuple[str, str, int] | None:
        """Class and message of a trial's last failure, and how many it had; None if it had none."""
        own = [each for each in self._found if each[1] == trial_id]
        return (own[-1][2], f"{own[-1][3]} ({own[-1][0].name})", len(own)) if own else None

    def left_alone(self) -> list[Place]:
        """Places that no trial shall use any more."""
        counted = [place for place, _, failure_class, _ in self._found if failure_class not in OF_NOBODY]
        return [place for place in dict.fromkeys(counted) if counted.count(place) >= MOST_FAILURES]

    def avoided(self, trial_id: str) -> list[Place]:
        """Places that a trial shall not use: those that are left alone, and those where it failed itself."""
        own = [
            place
            for place, trial, failure_class, _ in self._found
            if trial == trial_id and failure_class not in OF_NOBODY
        ]
        return list(dict.fromkeys([*self.left_alone(), *own]))

    def record(self) -> list[dict[str, Any]]:
        """Describe every place that failed, for the record and the report."""
        alone = self.left_alone()
        return [
            {
                "place": place.name,
                "failures": [
                    {"trial_id": trial, "failure_class": failure_class, "message": message}
                    for where, trial, failure_class, message in self._found
                    if where == place
                ],
                "left_alone": place in alone,
            }
            for place in dict.fromkeys(each[0] for each in self._found)
        ]


def has_room_outside(resources: ResourcesConfig, avoided: Collection[Place]) -> bool:
    """Whether a trial fits on the present nodes without these places, were nothing else running."""
    found = 0
    for node in ray.nodes():
        if node["Alive"] and Place(node["NodeID"], (), "") not in [each._replace(name="") for each in avoided]:
            lost = {gpu for each in avoided if each.node == node["NodeID"] for gpu in each.gpus}
            total = {**node["Resources"]}
            total["GPU"] = total.get("GPU", 0) - len(lost)
            found += num_fitting(resources, units(total))
    return found >= resources.workers


def selector_without(avoided: Iterable[Place], *, whole_nodes_only: bool) -> dict[str, str]:
    """Ray's label selector that keeps away from nodes; the GPUs of a node it cannot tell apart."""
    nodes = sorted({each.node for each in avoided if not each.gpus or not whole_nodes_only})
    return {NODE_ID: f"!in({','.join(nodes)})"} if nodes else {}


def end_process() -> NoReturn:
    """End this process at once, as a lost one: what broke in it would break everything that follows."""
    os._exit(1)
