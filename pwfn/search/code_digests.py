"""One short digest per module of the code that a study's numbers come from; a study that is continued compares them."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
ROOTS = ("pwfn.trial.run", "pwfn.sweep.distributed", "pwfn.search.proposer")
"""Modules that compute a trial's row, in one process or on several workers, and the one that proposes trials."""
HEX_DIGITS = 8


def code_digests(package: Path = PACKAGE) -> dict[str, str]:
    """Digest every module of the package that `ROOTS` import, directly or not, by its path from the package's parent.

    Code that only starts, shows or exports a sweep is not imported by them, so it may change while a sweep is
    interrupted. Comments, docstrings and formatting do not change a digest.
    """
    digests: dict[str, str] = {}
    waiting = [path for root in ROOTS for path in _files_of(root, package)]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(package.parent).as_posix()
        if name not in digests:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            waiting += [file for module in _imported(tree) for file in _files_of(module, package)]
            digests[name] = _digest(tree)
    return dict(sorted(digests.items()))


def _imported(tree: ast.Module) -> Iterator[str]:
    """Every dotted name that is imported and may be a module, at the top of the file or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files_of(module: str, package: Path) -> Iterator[Path]:
    """The files that run when a module of the package is imported: its own and those of the packages above it."""
    first, *parts = module.split(".")
    if first != package.name:
        return
    for depth in range(len(parts) + 1):
        stem = package.joinpath(*parts[:depth])
        yield from (path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file())


def _digest(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:HEX_DIGITS]


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is only a text: the docstring of a module, class, function or field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
