"""The GPU path without a GPU: whole trials on a pretended CUDA device, in a process of its own."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def guard(request) -> Path:
    """`guard.cpp`, compiled once for this torch; where there is no compiler that is said, and fails where CI is set."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        missing = "the checks on the pretended CUDA device need a C++ compiler (apt-get install g++)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    torch = Path(importlib.util.find_spec("torch").origin).parent
    source = HERE / "guard.cpp"
    key = hashlib.sha256(source.read_bytes() + (torch / "version.py").read_bytes()).hexdigest()[:16]
    library = Path(request.config.cache.mkdir("pretended_cuda")) / f"guard-{key}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}")
        include = f"-I{torch / 'include'}"
        subprocess.run([compiler, "-shared", "-fPIC", "-std=c++20", include, source, "-o", partial], check=True)
        partial.replace(library)
    return library


@pytest.mark.parametrize(
    ("checks", "which"),
    [
        ("check_trials.py", "not slow"),
        ("check_failures.py", "not slow"),
        pytest.param("check_trials.py", "slow", marks=pytest.mark.slow),
    ],
)
def test_on_the_pretended_device(checks, which, guard):
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=short", "--noconftest", "--color=no", "-p", "no:cacheprovider",
        "-p", "pretended_cuda", "-o", f"pythonpath={HERE}", "-o", "python_files=check_*.py", "-m", which,
        str(HERE / checks),
    ]  # fmt: skip
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PRETENDED_CUDA_GUARD": str(guard), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
