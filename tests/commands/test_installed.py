"""pwfn installed from a wheel, in an environment inside a repository of something else."""

import subprocess
import sys
from pathlib import Path

import pytest

import pwfn
from pwfn.errors import UserError
from pwfn.space.space import SHIPPED
from pwfn.sweep.cluster import check_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def run(make_environment, wheel, without_pwfn):
    """Run a program of an environment that pwfn's wheel is installed in."""
    python = make_environment()
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, wheel], check=True, env=without_pwfn)

    def call(program, *arguments, cwd):
        command = [python.with_name(program), *arguments]
        return subprocess.run(command, cwd=cwd, env=without_pwfn, capture_output=True, text=True, timeout=200)

    return call


def test_an_installed_pwfn_brings_its_search_spaces(run, tmp_path):
    done = run("pwfn", "search", "--space", "digits", "--dry-run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Plan of digits" in done.stdout
    none = run("pwfn", "search", "--space", "none", cwd=tmp_path)
    names = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
    assert none.stderr.startswith(f"error: no search space 'none': neither a file nor one of {names}")
    assert not list(tmp_path.iterdir())


def test_an_installed_pwfn_reports_a_recorded_study(run, tmp_path):
    study = ["--results", ROOT / "docs" / "results" / "cifar10", "--study", "wfn_cifar10"]
    done = run("pwfn", "report", *study, "--out", "report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cifar_resnet20 on cifar10" in done.stdout
    assert (tmp_path / "report" / "front.png").is_file()


def test_an_installed_pwfn_has_no_commit_of_the_repository_around_it(run, tmp_path):
    show = "import pwfn.trial.rows as rows; print(rows.__file__, rows.commit(), rows.versions()['pwfn'])"
    done = run("python", "-c", show, cwd=tmp_path)
    file, commit, version = done.stdout.split()
    assert "site-packages" in file
    assert (commit, version) == ("None", pwfn.__version__)


def test_ray_is_not_started_where_its_processes_would_import_another_pwfn(tmp_path):
    check_folder(tmp_path)
    check_folder(ROOT)
    other = tmp_path / "pwfn"
    other.mkdir()
    check_folder(tmp_path)
    (other / "__init__.py").touch()
    with pytest.raises(UserError, match=f"{tmp_path} holds another pwfn than the one that runs, {ROOT / 'pwfn'}; "):
        check_folder(tmp_path)
