"""Whole trials of every method on the pretended device; `test_pretended_cuda.py` runs this in a process of its own."""

import functools
from collections import Counter
from contextlib import contextmanager

import pytest
import small_trials  # before torch
import torch
from pretended_cuda import ledger, pretended_cuda
from small_trials import CASES, COMPARED, GRAPHED_STEPS, config, graphed_config, phases, run

import pwfn.training
from pwfn.config import PwfnConfig
from pwfn.descent import Descent
from pwfn.graphs import EAGER_STEPS
from pwfn.methods.pwfn.method import PosteriorLearner
from pwfn.methods.pwfn.posterior import Posterior
from pwfn.trial import opening

SLOW_TRAINED = [pytest.param(case, marks=pytest.mark.slow) for case in ("pwfn", "wfn")]
FURTHER = (
    "pwfn, free, fisher, linear_on_grad", "pwfn, equalised", "pwfn, exponential, nearest, resized",
    "qat, powers of two, fisher", "gpfq, sample by sample", "msq", "kmeans by tensor",
)  # fmt: skip
"""Cases beside those that have every method and kind of training once."""
UNDETERMINED: set[tuple[str, str]] = set()
"""Operations whose results on floats differ from run to run, and the files that asked for them, of all trials so far.
"""
ALLOWED = {("index_add_", "methods/qat/assignment.py")}
"""The sums of qat and of living weights are exchanged between replicas before anything follows from them."""
LOOPS = ("train", "evaluate", "recalibrate", "float network train")
SHORT = {"method": PwfnConfig(fractions=(1.0,), b=4, max_order=2)}


@functools.cache
def on_the_device(case: str, size: int = 1):
    """Row, waits by phase, and the shapes of what is left on the device, of a trial with so many times the images."""
    return measured(config(**CASES[case], train_images=128 * size, images=64 * size))


def measured(of):
    ledger.clear()
    with pretended_cuda(), phases():
        row = run(of, "cuda")
        opening._data.cache_clear()
    UNDETERMINED.update((operation, line.partition(":")[0]) for _, operation, line in ledger.undetermined)
    waits = Counter()
    for (phase, *_), number in ledger.waits.items():
        waits[phase] += number
    return row, waits, ledger.shapes_alive()


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in FURTHER)) for case in CASES])
def test_the_device_gives_the_row_of_the_cpu_and_keeps_nothing(case):
    row, _, left = on_the_device(case)
    assert row["state"] == "complete", row["failure_message"]
    expected = run(config(**CASES[case]), "cpu")
    assert {name: row.get(name) for name in COMPARED} == {name: expected.get(name) for name in COMPARED}
    assert left == []
    assert UNDETERMINED <= ALLOWED


@pytest.mark.parametrize("case", ["pwfn, live, alternate", "qat", *SLOW_TRAINED])
def test_the_host_does_not_wait_more_often_for_more_batches(case):
    _, few, _ = on_the_device(case)
    _, many, _ = on_the_device(case, 2)
    assert {phase: many[phase] for phase in LOOPS} == {phase: few[phase] for phase in LOOPS}
    assert few["evaluate"] > 0  # the result is asked for: waiting is counted at all


# Planted defects, each a line of the product changed: the checks above can fail.


@contextmanager
def planted(owner, name, change):
    before = getattr(owner, name)
    setattr(owner, name, change(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


def with_a_generator_of_the_cpu(draw_):
    return lambda self, generator: draw_(self, torch.Generator())


def with_a_tensor_of_the_cpu(draw_):
    def change(self, generator):
        draw_(self, generator)
        self.sample.add_(torch.zeros(len(self.sample)))

    return change


def with_numpy(draw_):
    def change(self, generator):
        draw_(self, generator)
        self.sample.detach().numpy()

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_a_generator_of_the_cpu, "Expected a 'cuda' device type for generator"),
        (with_a_tensor_of_the_cpu, "same device"),
        (with_numpy, "can't convert cuda:0"),
    ],
)
def test_devices_that_are_mixed_are_found(change, words):
    with planted(Posterior, "draw_", change):
        row, *_ = measured(config(**SHORT, train_images=32, images=32))
    assert row["state"] == "failed"
    assert words in row["failure_message"]


def that_asks_for_a_number(fill):
    def change(self, pulled, free):
        squares = fill(self, pulled, free)
        if squares.isnan():
            raise ValueError
        return squares

    return change


def that_assigns_by_a_mask(fill):
    def change(self, pulled, free):
        squares = fill(self, pulled, free)
        self.sigma_gradient[self.fixed] = 0
        return squares

    return change


@pytest.mark.parametrize("change", [that_asks_for_a_number, that_assigns_by_a_mask])
def test_waiting_in_every_step_is_found(change):
    with planted(Posterior, "fill_sigma_gradient_and_square_", change):
        few, many = (measured(config(**SHORT, train_images=n, images=32))[1]["train"] for n in (64, 128))
    assert many == few + 2  # two steps more


def test_waiting_in_every_recalibrated_batch_is_found():
    def with_momentum_none(network, batches, *, replicas, micro_batches=1):
        layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
        with torch.no_grad():
            for images, _ in batches:
                network(images)
        return bool(layers)

    with planted(small_trials.pwfn.task, "recalibrate_batchnorm", lambda before: with_momentum_none):
        few, many = (measured(config(**SHORT, train_images=n, images=32))[1]["recalibrate"] for n in (64, 128))
    assert many > few


def test_what_stays_on_the_device_is_found():
    kept = []

    def that_keeps_its_gradient(step):
        def change(self):
            step(self)
            kept.append(self.descent.gradient)

        return change

    with planted(pwfn.training.Learner, "step", that_keeps_its_gradient):
        *_, left = measured(config(**SHORT, train_images=32, images=32))
    assert tuple(kept[0].shape) in left


def graphed(case, wished=True):
    """Row of a trial with so many steps in each of two epochs."""
    row, *_ = measured(graphed_config(case, wished))
    return row


@functools.cache
def numbers_without_graph(case):
    row = graphed(case, wished=False)
    assert ledger.launches["train", "graph"] == 0
    return {name: row.get(name) for name in COMPARED}


@pytest.mark.parametrize("case", ["pwfn", pytest.param("wfn", marks=pytest.mark.slow)])
def test_steps_that_are_launched_as_one_graph_give_the_same_row(case):
    row = graphed(case)
    assert row["state"] == "complete", row["failure_message"]
    assert ledger.launches["train", "graph"] >= 2 * (GRAPHED_STEPS - EAGER_STEPS)
    assert {name: row.get(name) for name in COMPARED} == numbers_without_graph(case)


def test_a_learning_rate_inside_a_graph_is_found():
    with planted(Descent, "write_lrs_", lambda before: lambda self: None):
        row = graphed("pwfn")
    assert row["state"] == "complete"
    assert {name: row.get(name) for name in COMPARED} != numbers_without_graph("pwfn")


def test_what_a_graph_cannot_hold_is_named():
    for owner, name, change in (
        (PosteriorLearner, "generators", lambda before: lambda self: []),
        (Posterior, "fill_sigma_gradient_and_square_", that_asks_for_a_number),
    ):
        with planted(owner, name, change):
            row = graphed("pwfn")
        assert row["state"] == "failed"
        assert "training.cuda_graph: a step of this network cannot be recorded" in row["failure_message"]
