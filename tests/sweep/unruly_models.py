"""Networks that misbehave in a trial's process: one hangs, one eats memory, one kills it."""

import os
import signal
import time

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import torch
from timm import create_model
from timm.models import register_model

BAD_BATCH = 48
"""Images in a batch at which they misbehave."""


def hanging_mlp(pretrained: bool = False, **kwargs):
    """Never comes back from a batch of the bad size."""
    return _with_hook(lambda: time.sleep(3600), **kwargs)


def greedy_mlp(pretrained: bool = False, **kwargs):
    """Takes ever more memory at a batch of the bad size."""

    def eat() -> None:
        eaten = []
        while True:
            eaten.append(torch.ones(2**26))  # 256 MiB, touched
            time.sleep(0.05)

    return _with_hook(eat, **kwargs)


def deadly_mlp(pretrained: bool = False, **kwargs):
    """Kills its process at a batch of the bad size."""
    return _with_hook(lambda: os.kill(os.getpid(), signal.SIGKILL), **kwargs)


def breaking_mlp(pretrained: bool = False, **kwargs):
    """Finds a broken GPU on the node that `PWFN_TEST_BROKEN_NODE` names, as soon as it trains there."""

    def break_() -> None:
        import ray

        if ray.get_runtime_context().get_node_id() == os.environ["PWFN_TEST_BROKEN_NODE"]:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    return _with_hook(break_, **kwargs)


def _with_hook(misbehave, **kwargs):
    network = create_model("digits_mlp", **kwargs)

    def hook(module, inputs) -> None:
        if len(inputs[0]) == BAD_BATCH:
            misbehave()

    network.register_forward_pre_hook(hook)
    return network


def register() -> None:
    """Make them known to timm in this process: to be run in each process of a cluster."""
    register_model(hanging_mlp)
    register_model(greedy_mlp)
    register_model(deadly_mlp)
    register_model(breaking_mlp)
