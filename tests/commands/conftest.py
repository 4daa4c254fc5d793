"""Environments that have what pwfn depends on, but not pwfn; and a network with few values for export and shrink."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pwfn.config import DataConfig, ModelConfig
from pwfn.export.evaluation import TestImages
from pwfn.models import build_network
from pwfn.parameters import split_parameters


@pytest.fixture(scope="session")
def without_pwfn() -> dict[str, str]:
    """The environment variables, without the one that would lead a process to this checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory: pytest.TempPathFactory, without_pwfn: dict[str, str]) -> Callable[[], Path]:
    """Make an environment inside somebody's repository, with the packages of the one that runs; give its Python."""

    def make() -> Path:
        repository = tmp_path_factory.mktemp("somebodys")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", repository / "venv"], check=True)
        (packages,) = (repository / "venv").glob("lib/*/site-packages")
        # A folder named in a .pth file comes without its own .pth files, and so without a checkout installed in it.
        (packages / "those_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
        author = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
        for command in (["init", "--quiet"], [*author, "commit", "--quiet", "--allow-empty", "--message", "begin"]):
            subprocess.run(["git", *command], cwd=repository, check=True)
        python = repository / "venv" / "bin" / "python"
        look = "from importlib.util import find_spec; print(bool(find_spec('torch')), find_spec('pwfn'))"
        found = subprocess.check_output([python, "-c", look], cwd=repository, env=without_pwfn, text=True)
        assert found.split() == ["True", "None"]
        return python

    return make


@pytest.fixture(scope="session")
def network() -> nn.Module:
    """A network for the digits, trained for a moment, then rounded to some hundred values."""
    network = build_network(ModelConfig(name="digits_cnn"), num_classes=10, in_channels=1)
    images = TestImages(DataConfig(name="digits", split_seed=0), network, batch_size=512).data
    pixels, labels = next(images.batches("train", batch_size=600))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    network.train()
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(pixels), labels).backward()
        optimizer.step()
    with torch.no_grad():
        for parameter in split_parameters(network).fixable.values():
            parameter.copy_((parameter * 64).round() / 64 + 0.0)
    return network.eval()
