"""Environments that have what pwfn depends on, but not pwfn."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest


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
