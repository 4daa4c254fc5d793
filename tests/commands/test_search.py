"""The commands `search` and `train` as a user meets them: real processes, real messages, real exit codes."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from PIL import Image
from undisturbed import run_alone

import analysis
from pwfn import commands
from pwfn.commands.search import suggestion
from pwfn.results.store import ResultsStore
from pwfn.search.study import open_study
from pwfn.space.space import SearchSpace

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "tests" / "small_space.yaml"


def launch(name: str, *arguments: object, cwd: Path, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launchers" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def main(tmp_path, monkeypatch, capsys):
    """Run a command in this process, in an empty folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(name: str, *arguments: object) -> tuple[int, str, str]:
        code = commands.main([name, *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("space", sorted(path.name for path in (ROOT / "search_spaces").glob("*.yaml")))
def test_every_shipped_space_has_a_plan(main, space, tmp_path):
    code, output, error = main("search", "--space", space, "--dry-run")
    assert code == 0 or error.startswith("error: data.root: ")  # data that is not here is said, after the plan
    for part in ("search", "objective", "resources per trial", "fixed"):
        assert part in output
    assert list(tmp_path.iterdir()) == []


def test_a_plan_tells_of_a_warm_start_and_of_replicates(main, tmp_path):
    store = ResultsStore(str(tmp_path / "results"), "old")
    store.create()
    store.write_study({"study": "old"})
    code, output, _ = main(
        "search", "--space", SPACE, "--dry-run", "--warm-start", "results/old", "--confirm", 3,
        "--set", "search.batch=4",
    )  # fmt: skip
    assert code == 0
    for expected in ("told 0 of 0 trials of old", "3 more for each trial on the front", "batch"):
        assert expected in output


def test_a_dry_run_starts_neither_ray_nor_optuna(tmp_path):
    store = ResultsStore(str(tmp_path / "results"), "old")
    store.create()
    store.write_study({"study": "old"})
    code = (
        "import sys; from pwfn.commands import main\n"
        "assert main(['search', '--space', 'digits', '--dry-run', '--warm-start', 'results/old']) == 0\n"
        "assert not {'ray', 'optuna'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--space", "digit"], "no search space 'digit'"),
        (["--space", SPACE, "--set", "method.bb=7"], "method.bb is not a field of"),
        (["--space", SPACE, "--set", "method.b=seven"], "must be a valid integer"),
        (["--space", SPACE, "--set", "method.b=30"], "less than or equal to 20"),
        (["--space", SPACE, "--set", "method.sigma_join=mean_mu"], "mean_mu"),
        (["--space", SPACE, "--set", "search.sampler=bayes"], "search.sampler is 'bayes', but must be 'tpe', "),
        (["--space", SPACE, "--trials", "0"], "greater than or equal to 1"),
        (["--space", SPACE, "--confirm", "-1"], "--confirm is -1, but must be at least 0"),
        (
            ["--space", SPACE, "--dry-run", "--warm-start", "results/none"],
            "--warm-start results/none: there is no study",
        ),
        (["--space", SPACE, "--warm-start", "results/none"], "--warm-start results/none: there is no study"),
        (
            ["--space", "methods_digits", "--set", "method.name=kmeans", "method.delta=0.1"],
            "--set method.delta is a field of WfnConfig, but method.name selects KmeansConfig",
        ),
        (["--space", SPACE, "--results", "/proc/results"], "/proc/results"),
        (["--space", SPACE, "--study", "a/b"], "is not a name"),
        (["--space", SPACE, "--study", "a/b", "--dry-run"], "is not a name"),
        (["--space", SPACE, "--retry-failed"], "--retry-failed: there is no such trial in "),
        (["--space", SPACE, "--retry-failed", "oom", "--dry-run"], "--retry-failed oom: there is no such trial in "),
        (["--space", SPACE, "--set", "method.b=4", "--set", "method.b=5"], "--set method.b is given twice"),
        (["--space", SPACE, "--ray-temp-dir", "/proc/ray"], "/proc is not a folder that can be written to"),
        (["--space", SPACE, "--ray-temp-dir", f"/tmp/{'long' * 10}"], "too long for sockets"),
        (["--space", SPACE, "--ray-temp-dir", "/tmp/r", "--address", "auto"], "with --address it runs already"),
        (["--space", SPACE, "--address", "127.0.0.1:1"], "--address 127.0.0.1:1: nothing answers there"),
        (["--space", SPACE, "--address", "ray://127.0.0.1:1"], "cannot run through Ray's client"),
    ],
)
def test_what_a_search_refuses(main, arguments, expected, tmp_path):
    code, _, errors = main("search", *arguments)
    assert code == 2
    assert errors.startswith("error: ")
    assert expected in errors
    assert len(errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_study_begun_by_other_code_is_refused_before_anything_starts(main, tmp_path):
    store = ResultsStore(str(tmp_path / "results"), "small_space")
    open_study(SearchSpace.load(SPACE), store, command="test")
    store.write_study({**store.read_study(), "versions": {**store.read_study()["versions"], "torch": "1.0"}})
    store.write_proposal("0000", {"trial_id": "0000", "number": 0, "params": {}})
    store.write_trial({"trial_id": "0000"})
    code, _, errors = main("search", "--space", SPACE)
    assert code == 2
    assert "small_space was begun otherwise (torch: 1.0 -> " in errors
    assert "--force-resume" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.cluster
def test_a_model_that_does_not_exist_ends_the_process_with_one_line(tmp_path):
    done = launch("search", "--space", SPACE, "--set", "model.name=digits_mpl", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "did you mean digits_mlp" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--space", SPACE, "--set", "model.checkpoint=none.safetensors"], "none.safetensors"),
        (["--space", SPACE, "--set", "resources.gpus_per_worker=1"], "--set resources.gpus_per_worker=0"),
        (["--study", "none", "--trial", "7"], "has no finished trial 0007"),
        (["--space", SPACE, "--address", "auto"], "--address auto: a trial with one worker runs in this process"),
    ],
)
def test_what_a_trial_by_hand_refuses(main, arguments, expected, tmp_path):
    code, _, errors = main("train", *arguments)
    assert code == 2
    assert errors.strip().splitlines()[-1].startswith("error: ")
    assert expected in errors.strip().splitlines()[-1]
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("space", "trains"), [(SPACE, True), ("kmeans_digits.yaml", False)])
def test_a_trial_by_hand_says_what_it_reached(main, space, trains, tmp_path):
    code, output, errors = main("train", "--space", space, "--set", "baseline.epochs=1")
    assert code == 0, errors
    assert re.search(r"^float: +test \d+\.\d\d%, validation \d+\.\d\d%$", output, re.MULTILINE)
    assert re.search(r"^compressed: test \d+\.\d\d%, .* values, .* bytes \(.* times smaller\)$", output, re.MULTILINE)
    assert ("before the last fixing: test" in output) == trains


@pytest.fixture(scope="module")
def in_a_bare_checkout(tmp_path_factory, make_environment, without_pwfn):
    """Run a command line where pwfn is not installed; a name alone is that of a launcher in a copy of this checkout."""
    copy, python = tmp_path_factory.mktemp("bare") / "my pwfn", make_environment()
    for name in ("pwfn", "analysis", "launchers", "search_spaces"):
        shutil.copytree(ROOT / name, copy / name)
    shutil.copy(ROOT / "pyproject.toml", copy)

    def run(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        shown = [] if arguments else shlex.split(name)
        command = shown or [python, copy / "launchers" / f"{name}.py", *arguments]
        return subprocess.run(
            list(map(str, command)), cwd=cwd, env=without_pwfn, capture_output=True, text=True, timeout=280
        )

    return run


@pytest.fixture(scope="module")
def searched(tmp_path_factory, in_a_bare_checkout):
    """A small search by a bare checkout, one trial at a time."""
    folder = tmp_path_factory.mktemp("searched")
    fields = ["search.max_concurrent=1", "search.keep_models=2"]
    done = in_a_bare_checkout("search", "--space", SPACE, "--set", *fields, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.mark.cluster
def test_a_search_ends_with_the_front_the_report_and_the_export_command(searched, in_a_bare_checkout):
    folder, done = searched
    output = done.stdout
    assert "3/3 done" in output
    assert "digits_mlp on digits" in output
    reports = [line.removeprefix("report: ") for line in output.splitlines() if line.startswith("report: ")]
    assert reports
    assert all(Path(report).is_file() for report in reports)
    shown = next(line for line in output.splitlines() if line.startswith("export a point: "))
    exported = in_a_bare_checkout(shown.removeprefix("export a point: "), cwd=folder)
    assert exported.returncode == 0, exported.stderr
    assert (folder / shlex.split(shown)[-1]).is_file()


@pytest.mark.cluster
def test_what_the_user_typed_is_recorded(searched):
    folder, done = searched
    card = ResultsStore(str(folder / "results"), "small_space").read_study()
    assert shlex.split(card["command"]) == list(map(str, done.args))


@pytest.mark.cluster
def test_the_same_seed_gives_identical_rows(searched, tmp_path):
    """In the processes of a search, and in this one."""
    run_alone(tmp_path / "results", name="small_space")
    columns = (
        "* EXCLUDE (wall_seconds, gpu_seconds, train_seconds, data_seconds, started_at, finished_at, host, commit, "
        "size_bytes, compression_ratio)"
    )
    rounds = "* EXCLUDE (train_seconds, data_seconds, fix_seconds, eval_seconds, finished_at)"
    trials, histories = [], []
    for folder in (searched[0], tmp_path):
        study = folder / "results" / "small_space"
        trials.append(duckdb.sql(f"SELECT {columns} FROM '{study}/trials/*.parquet' ORDER BY number").fetchall())
        histories.append(duckdb.sql(f"SELECT {rounds} FROM '{study}/rounds/*.parquet' ORDER BY ALL").fetchall())
    assert len(trials[0]) == 3
    assert trials[0] == trials[1]
    assert histories[0] == histories[1]


@pytest.mark.slow
@pytest.mark.cluster
def test_a_trial_whose_network_was_deleted_runs_again_to_the_same_numbers_and_is_exported(searched, in_a_bare_checkout):
    folder, output = searched[0], searched[1].stdout
    study = folder / "results" / "small_space"
    assert ", deleted 1; --set search.keep_models=null keeps all" in output
    (deleted,) = {f"{number:04d}" for number in range(3)} - {path.stem for path in study.glob("models/*")}
    refused = in_a_bare_checkout("export", "--study", "small_space", "--trial", deleted, "--out", "x", cwd=folder)
    assert refused.returncode == 2
    done = in_a_bare_checkout(refused.stderr.partition("run it again with its own seed: ")[2], cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    query = "SELECT val_top1, test_top1, float_test_top1, unique_values, entropy_bits, seed FROM '{}'"
    original = duckdb.sql(query.format(study / "trials" / f"{deleted}.parquet")).fetchall()
    again = duckdb.sql(query.format(folder / "results" / "small_space-by-hand" / "trials" / "0000.parquet")).fetchall()
    assert again == original
    exported = in_a_bare_checkout(done.stdout.partition("export it: ")[2], cwd=folder)
    assert exported.returncode == 0, exported.stderr
    assert "loaded from the file" in exported.stdout


@pytest.mark.slow
@pytest.mark.cluster
def test_only_float_trains_the_float_network_and_the_same_command_without_it_goes_on(tmp_path):
    command = ("search", "--space", SPACE, "--trials", "1", "--set", "search.max_concurrent=1")
    done = launch(*command, "--only-float", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    store = ResultsStore(str(tmp_path / "results"), "small_space")
    [file] = (tmp_path / "results" / "small_space" / "baseline").glob("*.safetensors")
    before, card = file.stat(), store.read_record(f"baseline/{file.stem}")
    said = (
        f"float network: test {card['test_top1']:.2%}, validation {card['val_top1']:.2%}, results/small_space/baseline/"
    )
    assert said in done.stdout
    assert card["test_top1"] > 0.5  # four epochs on the digits
    assert store.read_trials() == []
    assert store.proposal_ids() == []
    done = launch(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [row] = store.read_trials()
    assert (row["state"], row["float_test_top1"]) == ("complete", card["test_top1"])
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_the_trial_to_export_is_chosen_by_the_mean_of_its_seeds(tmp_path):
    space = SearchSpace.load(SPACE)
    store = ResultsStore(str(tmp_path), "confirmed")
    open_study(space, store, command="test")
    assert suggestion(analysis.load(str(tmp_path / "confirmed"))) is None

    def end(number: int, replicate: int, values: int, accuracy: float) -> None:
        config = space.trial_config(space.variation.example({"method.b": 3 + number}), number, replicate)
        mark = f"-r{replicate}" if replicate else ""
        store.write_trial(
            {
                "trial_id": f"{number:04d}{mark}", "number": number, "state": "complete", "seed": config.seed,
                "method": "pwfn", "model": "digits_mlp", "data": "digits", "config_json": config.model_dump_json(),
                "val_top1": accuracy, "float_val_top1": 0.98, "unique_values": values,
            }
        )  # fmt: skip

    end(0, 0, values=20, accuracy=0.975)
    end(1, 0, values=10, accuracy=0.96)
    end(1, 1, values=10, accuracy=0.98)  # lucky
    end(1, 2, values=11, accuracy=0.95)
    assert suggestion(analysis.load(str(tmp_path / "confirmed"))) == "0000"
    end(2, 0, values=16, accuracy=0.96)
    end(2, 1, values=15, accuracy=0.99)
    assert suggestion(analysis.load(str(tmp_path / "confirmed"))) == "0002"


def test_a_dry_run_says_what_is_missing_after_the_plan(main, monkeypatch):
    monkeypatch.delenv("IMAGENET", raising=False)
    code, output, errors = main("search", "--space", "deit", "--dry-run")
    assert code == 2
    assert "Plan of deit" in output
    assert errors.startswith("error: data.root: '${IMAGENET}' needs the environment variable IMAGENET")


def test_a_dry_run_says_what_is_understood(main, tmp_path):
    code, output, _ = main("search", "--space", "digits", "--dry-run")
    assert code == 0
    for expected in ("scikit-learn's digits", "10, numbers of the data: 0 0, 1 1", "grey, 8x8 pixels", "digits_cnn"):
        assert expected in output
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def pictures(tmp_path):
    for part in ("train", "val"):
        for place, name in enumerate(("ant", "bee")):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(4):
                image = Image.new("RGB", (8, 8), (100 * place, number, 0))
                image.save(tmp_path / "data" / part / name / f"{number}.png")
    return tmp_path / "data"


def test_check_data_lists_the_broken_images_and_writes_nothing(main, pictures, tmp_path):
    fields = ["data.name=imagefolder", f"data.root={pictures}", "data.augmentation=none"]
    code, output, error = main(
        "search", "--space", "digits", "--dry-run", "--check-data", "--set", *fields, "data.channels=1"
    )
    assert (code, error) == (0, "")
    assert "16 images looked at, 0 broken" in output
    (pictures / "val" / "bee" / "2.png").write_bytes(b"<html>")
    for command in (["search"], ["train"]):
        code, output, error = main(*command, "--space", "digits", "--check-data", "--set", *fields, "data.channels=1")
        assert code == 2
        assert "bee/2.png: not a readable image" in output
        assert error.startswith("error: 1 of 16 images are broken, the first is")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
