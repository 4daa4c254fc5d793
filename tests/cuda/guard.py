"""Compiles `guard.cpp`, and says how a process with the pretended device is started."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


def compiler() -> str | None:
    return shutil.which("g++") or shutil.which("clang++")


def compiled_guard(folder: Path) -> Path:
    """Compile the guard for this torch into a folder, or take it from there."""
    torch = Path(importlib.util.find_spec("torch").origin).parent
    source = HERE / "guard.cpp"
    key = hashlib.sha256(source.read_bytes() + (torch / "version.py").read_bytes()).hexdigest()[:16]
    library = folder / f"guard-{key}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}")
        include = f"-I{torch / 'include'}"
        subprocess.run([compiler(), "-shared", "-fPIC", "-std=c++20", include, source, "-o", partial], check=True)
        partial.replace(library)
    return library


def environment(guard: Path) -> dict[str, str]:
    """Variables for a process that imports `pretended_cuda` before torch."""
    folders = [str(HERE), str(HERE.parents[1]), str(HERE.parent / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PRETENDED_CUDA_GUARD": str(guard),
        "PYTHONPATH": os.pathsep.join(folders),
        "OMP_NUM_THREADS": "1",
    }
