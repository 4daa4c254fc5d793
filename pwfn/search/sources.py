"""The code that a study's numbers come from, as one short digest per module: a resume names the files that changed."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
ROOTS = ("pwfn.trial.run", "pwfn.sweep.distributed", "pwfn.search.proposer")
"""What computes a trial's row, alone and on several workers, and what proposes trials."""
HEX_DIGITS = 8


def source_digests(package: Path = PACKAGE) -> dict[str, str]:
    """Digest every module of the package that `ROOTS` import, directly or not, by its path from the package's parent.

    So what only shows, starts or exports a sweep may change while it is interrupted; nobody keeps a list of that.
    Comments, docstrings and formatting count for nothing.
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
    """Every dotted name that may be a module, imported at the top or inside a function."""
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
    """Whether a statement is a lone text: the docstring of a module, class, function or field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
