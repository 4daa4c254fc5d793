"""The rules of the house, read from the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "pwfn").rglob("*.py")) + sorted((ROOT / "analysis").rglob("*.py"))


def imports(path: Path, *, types: bool = True) -> set[str]:
    """Every module that a file imports, at its top or inside a function; with or without those for types alone."""
    found = set()
    tree = ast.parse(path.read_text())
    for block in [] if types else [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
            block.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def file_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


def users_of(*packages: str) -> set[str]:
    """Files that import one of the packages, from the root."""
    return {
        str(path.relative_to(ROOT))
        for path in MODULES
        if any(name == package or name.startswith(f"{package}.") for name in imports(path) for package in packages)
    }


def folders(files: set[str], depth: int = 2) -> set[str]:
    return {"/".join(Path(file).parts[:depth]) for file in files}


def test_only_the_sweep_knows_ray():
    assert users_of("ray")
    assert all(file.startswith("pwfn/sweep/") for file in users_of("ray"))


def test_only_the_search_knows_optuna():
    assert users_of("optuna")
    assert all(file.startswith("pwfn/search/") for file in users_of("optuna"))


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("pwfn.space.space", ("torch", "ray", "optuna", "pandas")),  # a dry run shows its plan at once
        ("pwfn.sweep.sweep", ("torch", "timm")),  # a driver computes nothing; nor does its desk
    ],
)
def test_what_computes_nothing_needs_no_torch(module: str, absent: tuple[str, ...]):
    """What is imported with a module, in a process of its own: imports of imports count as well."""
    code = f"import sys, {module}; print(*(set({absent}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


ROOMS = (
    {"pwfn/clock", "pwfn/invocation", "pwfn/metrics", "pwfn/naming", "pwfn/stopping", "pwfn/whole"},
    {"pwfn/config", "pwfn/errors", "pwfn/seeds", "pwfn/paths", "pwfn/replicas", "pwfn/codebook", "pwfn/parameters",
     "pwfn/reach", "pwfn/torchvision_shim", "pwfn/exact", "pwfn/fused", "pwfn/graphs"},
    {"pwfn/float_network", "pwfn/data", "pwfn/models", "pwfn/results", "pwfn/space", "pwfn/criterion", "pwfn/descent",
     "pwfn/equalization", "pwfn/fisher", "pwfn/training", "pwfn/midway"},
    {"pwfn/export", "pwfn/task", "pwfn/recipe"},
    {"pwfn/baseline", "pwfn/methods"},
    {"pwfn/trial", "pwfn/shrink"},
    {"pwfn/search"},
    {"pwfn/sweep"},
    {"pwfn/commands"},
    {"pwfn/__main__"},
)  # fmt: skip
"""The rooms of the house from the ground up: none imports from a room that stands above it."""


def room_of(module: str) -> str:
    """The room of a dotted module of the library: its folder, or the file itself."""
    return "/".join(module.split(".")[:2])


def test_no_room_imports_from_one_above():
    level = {room: height for height, rooms in enumerate(ROOMS) for room in rooms}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in (ROOT / "pwfn").rglob("*.py")
        for module in imports(path, types=False)
        if (room := "/".join(path.relative_to(ROOT).with_suffix("").parts[:2])) in level
        if module.startswith("pwfn.") and level.get(room_of(module), 0) > level[room]
    ]
    assert not wrong


def test_no_two_modules_import_each_other():
    """Follow the imports from every module; none leads back to it. Packages' own files may gather what lies in them."""
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): {
            name for name in imports(path, types=False) if name.startswith("pwfn.")
        }
        for path in (ROOT / "pwfn").rglob("*.py")
        if path.stem != "__init__"
    }
    for start in graph:
        seen, waiting = set(), [*graph[start]]
        while waiting:
            module = waiting.pop()
            assert module != start, f"the imports of {start} lead back to it"
            if module not in seen:
                seen.add(module)
                waiting += graph.get(module, ())


def test_every_room_has_its_place():
    rooms = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "pwfn").glob("*.py")}
    rooms |= {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "pwfn").glob("*/__init__.py")}
    assert rooms - {"pwfn/__init__"} == set().union(*ROOMS)


def test_only_the_space_reads_yaml():
    assert users_of("ruamel.yaml", "yaml") == {"pwfn/space/space.py"}


def test_only_results_write_parquet():
    writers = {path for path in MODULES if "write_table(" in path.read_text() or ".to_parquet(" in path.read_text()}
    assert {str(path.relative_to(ROOT)) for path in writers} == {"pwfn/results/store.py"}


def test_the_report_runs_without_what_computes():
    assert not {file for file in users_of("torch", "ray", "optuna", "timm") if file.startswith("analysis/")}
    ours = {name for path in (ROOT / "analysis").rglob("*.py") for name in imports(path) if name.startswith("pwfn")}
    reading = {"pwfn.errors", "pwfn.export.layout", "pwfn.export.reading", "pwfn.export.stream"}
    assert ours == {"pwfn.metrics", "pwfn.naming", "pwfn.whole"} | reading
    assert not [name for name in ours - reading if any(each.startswith("pwfn") for each in imports(file_of(name)))]
    script = "import sys; sys.modules['torch'] = None; import pwfn.export.reading, pwfn.export.stream"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_timm_and_torchvision_are_imported_where_the_shim_comes_first():
    assert folders(users_of("timm", "torchvision")) <= {
        "pwfn/data",
        "pwfn/models",
        "pwfn/recipe",
        "pwfn/torchvision_shim.py",
    }
    for package in ("data", "models", "recipe"):
        tree = ast.parse((ROOT / "pwfn" / package / "__init__.py").read_text())
        statements = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = [node.names[0].name if isinstance(node, ast.Import) else str(node.module) for node in statements]
        ours = [module for module in modules if module.startswith("pwfn")]
        assert ours[0] == "pwfn.torchvision_shim"


def test_the_methods_know_neither_results_nor_search():
    known = users_of("pwfn.results", "pwfn.trial", "pwfn.search", "pwfn.sweep")
    assert not {file for file in known if file.startswith("pwfn/methods")}


def test_nothing_is_called_utils():
    names = {path.stem for path in MODULES}
    assert not names & {"utils", "util", "helpers", "common", "misc", "manager"}


def test_only_the_commands_print():
    for path in (path for path in MODULES if path.parent.name != "commands"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path
