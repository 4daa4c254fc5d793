"""Which places are left alone, how many trials fit, and which resources can never be had."""

from pathlib import Path

import pytest

from pwfn.config import ResourcesConfig
from pwfn.errors import UserError
from pwfn.space.space import SearchSpace
from pwfn.sweep.placement import num_fitting, units
from pwfn.sweep.places import Failures, Place


def place(node: str, *gpus: str) -> Place:
    return Place(node, gpus, f"node {node}" + (f", GPU {', '.join(gpus)}" if gpus else ""))


def test_a_place_is_left_alone_when_it_has_failed_twice():
    failures = Failures()
    failures.note(place("a", "0"), "0001", "device", "assert")
    assert failures.left_alone() == []
    assert failures.avoided("0001") == [place("a", "0")]
    assert failures.avoided("0002") == []
    failures.note(place("a", "0"), "0002", "device", "ECC")
    assert failures.left_alone() == failures.avoided("0003") == [place("a", "0")]
    assert place("a", "0").is_in(place("a"))
    assert not place("a", "1").is_in(place("a", "0"))
    for trial in ("0003", "0004"):
        failures.note(place("b", "1"), trial, "loader", "killed")
        failures.note(place("c", "0"), trial, "network", "NCCL")
    assert failures.left_alone() == [place("a", "0"), place("b")]  # of a broken network nobody knows whose fault it is
    assert failures.last("0004") == ("network", "NCCL (node c, GPU 0)", 2)
    assert [each["left_alone"] for each in failures.record()] == [True, True, False]


@pytest.mark.parametrize(
    ("gpus", "cpus", "expected"), [(0.6, 1, 8), (0.5, 1, 16), (0.3, 1, 24), (0.1, 0.1, 80), (1, 4, 8), (1, 5, 6)]
)
def test_slots_are_counted_as_ray_places_them(gpus, cpus, expected):
    """On a node of 8 GPUs and 32 CPUs."""
    resources = ResourcesConfig(gpus_per_worker=gpus, cpus_per_worker=cpus)
    assert num_fitting(resources, units({"CPU": 32, "GPU": 8})) == expected


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["resources.gpus_per_worker=2"], "use gpus_per_worker=1 with workers=2"),
        (["resources.workers=4", "resources.gpus_per_worker=0.25"], "NCCL refuses two workers of one trial on one GPU"),
        (["resources.cpus_per_worker=0.00001"], "less than Ray can count"),
        (["resources.custom={GPU: 1}"], "use resources.gpus_per_worker"),
    ],
)
def test_impossible_resources_are_refused_before_ray_starts(overrides, words):
    with pytest.raises(UserError, match="resources") as caught:
        SearchSpace.load(Path(__file__).parents[1] / "small_space.yaml", overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
