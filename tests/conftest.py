"""Settings and fixtures that all tests share."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import torch

import pwfn.torchvision_shim  # noqa: F401  (a test may import timm before anything of ours)
from pwfn.config import shared_data_folder
from pwfn.sweep.cluster import prepare_environment

# `datasets` reads its folder when it is imported, and must neither find nor leave anything behind.
_CACHE = tempfile.mkdtemp(prefix="pwfn-datasets-")
os.environ["HF_DATASETS_CACHE"] = _CACHE
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)

# A shell's background job ignores Ctrl-C, and so would the commands that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Ray gives way to all else on the machine; the tests wait for its processes, so that is lost time.
os.environ.setdefault("RAY_worker_niceness", "0")

# Ray reads its environment when it is imported, whichever test does that first.
prepare_environment(local=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets and pretrained networks; a test that needs them is skipped where they are not installed."""
    folder = shared_data_folder()
    if folder is None:
        pytest.skip("needs real data: set PWFN_DATA to a folder with cifar10/, mnist/ and resnet_cifar10/")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write golden files anew; review the difference")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The tests' networks are too small for threads, and Ray's processes share the machine's few cores."""
    torch.set_num_threads(1)
