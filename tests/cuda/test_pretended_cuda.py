"""The GPU path without a GPU: whole trials on a pretended CUDA device, in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_SPEC = importlib.util.spec_from_file_location("guard_of_the_pretended_device", HERE / "guard.py")
guards = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(guards)


@pytest.fixture(scope="session")
def guard(request) -> Path:
    """`guard.cpp`, compiled once for this torch; where there is no compiler that is said, and fails where CI is set."""
    if guards.compiler() is None:
        missing = "the checks on the pretended CUDA device need a C++ compiler (apt-get install g++)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return guards.compiled_guard(Path(request.config.cache.mkdir("pretended_cuda")))


@pytest.mark.parametrize(
    ("checks", "which"),
    [
        ("check_trials.py", "not slow"),
        ("check_failures.py", "not slow"),
        ("check_counts.py", "not slow"),
        pytest.param("check_trials.py", "slow", marks=pytest.mark.slow),
    ],
)
def test_on_the_pretended_device(checks, which, guard):
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=short", "--noconftest", "--color=no", "-p", "no:cacheprovider",
        "-p", "pretended_cuda", "-o", f"pythonpath={HERE}", "-o", "python_files=check_*.py", "-m", which,
        str(HERE / checks),
    ]  # fmt: skip
    done = subprocess.run(command, env=guards.environment(guard), capture_output=True, text=True, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
