"""The rules of the house, read from the imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "pwfn").rglob("*.py")) + sorted((ROOT / "analysis").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def users_of(*packages: str) -> set[str]:
    """Files that import one of the packages, from the root."""
    return {
        str(path.relative_to(ROOT))
        for path in MODULES
        if any(name == package or name.startswith(f"{package}.") for name in imports(path) for package in packages)
    }


def folders(files: set[str], depth: int = 2) -> set[str]:
    return {"/".join(Path(file).parts[:depth]) for file in files}


def test_only_the_search_knows_ray_and_optuna():
    assert users_of("ray", "optuna")
    assert all(file.startswith("pwfn/search/") for file in users_of("ray", "optuna"))


def test_only_the_space_reads_yaml():
    assert users_of("yaml") == {"pwfn/search/space.py"}


def test_only_results_write_parquet():
    writers = {path for path in MODULES if "write_table(" in path.read_text() or ".to_parquet(" in path.read_text()}
    assert {str(path.relative_to(ROOT)) for path in writers} == {"pwfn/results/store.py"}


def test_the_report_runs_without_the_library():
    assert not {file for file in users_of("torch", "ray", "optuna", "timm", "pwfn") if file.startswith("analysis/")}


def test_timm_and_torchvision_are_imported_where_the_shim_comes_first():
    assert folders(users_of("timm", "torchvision")) <= {"pwfn/data", "pwfn/models", "pwfn/torchvision_shim.py"}
    for package in ("data", "models"):
        tree = ast.parse((ROOT / "pwfn" / package / "__init__.py").read_text())
        statements = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = [node.names[0].name if isinstance(node, ast.Import) else str(node.module) for node in statements]
        ours = [module for module in modules if module.startswith("pwfn")]
        assert ours[0] == "pwfn.torchvision_shim"


@pytest.mark.parametrize("package", ["pwfn/methods", "pwfn/clustering"])
def test_the_algorithms_know_neither_results_nor_search(package):
    files = {file for file in users_of("pwfn.search", "pwfn.results") if file.startswith(package)}
    assert not files


def test_nothing_is_called_utils():
    names = {path.stem for path in MODULES}
    assert not names & {"utils", "util", "helpers", "common", "misc", "manager"}


def test_the_library_does_not_print():
    for path in MODULES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path
