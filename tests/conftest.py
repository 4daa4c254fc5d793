"""Settings and fixtures that all tests share."""

from pathlib import Path

import pytest

from pwfn.config import shared_data_folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets and pretrained networks; a test that needs them is skipped where they are not installed."""
    folder = shared_data_folder()
    if folder is None:
        pytest.skip("needs real data: set PWFN_DATA to a folder with cifar10/, mnist/ and resnet_cifar10/")
    return folder
