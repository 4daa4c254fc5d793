"""One trial in its own process: what it writes, how it fails, how it goes on after a SIGKILL."""

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pwfn.torchvision_shim  # noqa: F401  (before timm)

# isort: split
import pytest
import torch
from image_sets import fill
from timm import create_model
from timm.models import register_model

from pwfn.config import TrialConfig
from pwfn.errors import LoaderError, UserError
from pwfn.export import load_state
from pwfn.export.contents import read_contents
from pwfn.float_network import baseline_key
from pwfn.parameters import split_parameters
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.space.space import SearchSpace
from pwfn.trial.decision import Decision
from pwfn.trial.failures import failure
from pwfn.trial.opening import open_task
from pwfn.trial.rows import Trial
from pwfn.trial.run import run_trial

SPACE = Path(__file__).parents[1] / "small_space.yaml"
NOT_THE_RESULT = {
    "wall_seconds", "gpu_seconds", "lost_seconds", "retries", "started_at", "finished_at", "host", "study", "trial_id",
    "size_bytes", "compression_ratio", "train_seconds", "data_seconds", "fix_seconds", "eval_seconds",
}  # fmt: skip
"""Columns that may differ between two runs of one trial; a file's size depends on the names written into it."""


def make_trial(*overrides: str, trial_id: str = "0000") -> Trial:
    space = SearchSpace.load(SPACE, overrides)
    return Trial(trial_id, 0, "test", space.trial_config(space.start_settings()[0], 0))


def go_on(row, summary):
    return Decision.CONTINUE


def run(trial: Trial, store: ResultsStore, on_round=go_on):
    return run_trial(trial, store, device=torch.device("cpu"), replicas=Replicas(), on_round=on_round)


@pytest.fixture
def store(tmp_path):
    store = ResultsStore(str(tmp_path), "test")
    store.create()
    return store


def result(rows):
    return [{name: value for name, value in row.items() if name not in NOT_THE_RESULT} for row in rows]


def test_a_trial_leaves_a_row_its_rounds_its_codebook_and_its_network(store):
    trial = make_trial()
    row = run(trial, store)
    stored = store.read_trial("0000")
    assert row["state"] == stored["state"] == "complete"
    assert TrialConfig.model_validate_json(stored["config_json"]) == trial.config
    assert stored["method.b"] == 7
    rounds = store.read_rounds("0000")
    assert [each["fraction"] for each in rounds] == [0.5, 0.9, 1.0]
    assert [each["num_fixed"] for each in rounds][-1] == stored["num_weights"]
    assert rounds[-1]["val_top1"] == stored["val_top1"]
    assert rounds[-1]["val_top1_before"] == stored["val_top1_before"]
    assert rounds[-1]["unique_values"] == stored["unique_values"]
    for name in ("train_seconds", "data_seconds"):
        assert stored[name] == pytest.approx(sum(each[name] for each in rounds))
    assert 0 < stored["data_seconds"] < stored["train_seconds"] < stored["wall_seconds"]
    assert store.read_checkpoint("0000") is None
    assert len(store.read_model("0000")) == stored["size_bytes"]
    provenance = read_contents(Path(store.model_path("0000"))).metadata.provenance
    assert provenance["augmentation"] == trial.config.data.augmentation


def test_the_files_distinct_values_equal_the_reported_count(store):
    """Counted anew from the saved file, by nothing of ours but the decoder."""
    trial = make_trial()
    row = run(trial, store)
    state = load_state(Path(store.model_path("0000")))
    network = open_task(trial.config, trial.config.model, torch.device("cpu"), Replicas()).network
    values = {value for name in split_parameters(network).fixable for value in state[name].flatten().tolist()}
    assert len(values) == row["unique_values"]
    assert len(values) <= len({value for tensor in state.values() for value in tensor.flatten().tolist()})


def test_an_equalised_trial_starts_from_the_same_float_network_and_has_a_teacher(store):
    plain, other = (
        run(make_trial("model.name=digits_cnn", "method.b=4", *changes, trial_id=trial_id), store)
        for trial_id, changes in (("0000", []), ("0001", ["model.equalize=layer", "training.distillation=0.5"]))
    )
    assert other["state"] == "complete", other["failure_message"]
    assert baseline_key(make_trial().config) == baseline_key(make_trial("model.equalize=layer").config)
    assert plain["float_test_top1"] == other["float_test_top1"]
    assert other["model.equalize"] == "layer"
    assert plain["unique_values"] != other["unique_values"]
    state, equalised = (load_state(Path(store.model_path(trial_id))) for trial_id in ("0000", "0001"))
    weights = [name for name, tensor in state.items() if name.endswith("weight") and tensor.ndim == 4]
    sizes, others = ([float(each[name].square().mean().sqrt()) for name in weights] for each in (state, equalised))
    assert max(others) / min(others) < 1.1 < max(sizes) / min(sizes)


def test_the_float_network_is_made_once_and_every_trial_starts_from_it(store):
    first = run(make_trial(), store)
    second = run(make_trial("method.b=4", trial_id="0001"), store)
    assert len(list(Path(store.results, "test", "baseline").glob("*.safetensors"))) == 1
    assert first["float_test_top1"] == second["float_test_top1"] > 0.5
    assert first["float_val_top1"] == second["float_val_top1"]


def test_the_sigmas_are_kept_where_the_ensemble_is_measured(store):
    plain = run(make_trial(), store)
    kept = run(make_trial("evaluation.ensemble_draws=3", trial_id="0001"), store)
    assert plain["ensemble_test_top1"] is None
    assert 0 < kept["ensemble_test_top1"] <= 1
    assert kept["test_top1"] == plain["test_top1"]
    assert kept["size_bytes"] > plain["size_bytes"]


def test_bfloat16_trains_to_about_the_same_accuracy(store):
    exact = run(make_trial(), store)
    coarse = run(make_trial("training.precision=bfloat16", trial_id="0001"), store)
    assert coarse["test_top1"] == pytest.approx(exact["test_top1"], abs=0.1)


def test_a_loss_that_is_not_finite_is_a_failed_row_with_epoch_and_step(store):
    row = run(make_trial("training.lr=1e30", "training.clip_norm=null"), store)
    stored = store.read_trial("0000")
    assert (stored["state"], stored["failure_class"]) == ("failed", "nan")
    assert "round 1 epoch 1, step 2" in stored["failure_message"]
    assert stored["val_top1"] is None
    assert stored["method.b"] == row["method.b"] == 7


def test_bad_input_is_a_failed_row_of_the_users_class(store, tmp_path):
    run(make_trial(f"model.checkpoint={tmp_path}/missing.safetensors"), store)
    stored = store.read_trial("0000")
    assert (stored["state"], stored["failure_class"]) == ("failed", "user")
    assert "missing.safetensors" in stored["failure_message"]


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 MiB", "CUDA error: out of memory\nCompile with ...",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "Unable to find a valid cuDNN algorithm to run convolution",
    "GET was unable to find an engine to execute this computation",
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory",
    "NCCL error: unhandled cuda error, Cuda failure 'out of memory'",
)  # fmt: skip
BROKEN_DEVICE = (
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be", "CUDA error: an illegal memory access",
    "CUDA error: uncorrectable ECC error encountered", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
)  # fmt: skip
BROKEN_NETWORK = (
    "NCCL error in: ProcessGroupNCCL.cpp:1970, remote process exited or there was a network error",
    "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:21345",
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore"), "oom"),
        (MemoryError(), "oom"),
        (OSError(12, "Cannot allocate memory"), "oom"),
        *((RuntimeError(words), "oom") for words in OUT_OF_MEMORY),
        (raised_from(UserError("model: x cannot be built"), RuntimeError(OUT_OF_MEMORY[0])), "oom"),
        *((RuntimeError(words), "device") for words in BROKEN_DEVICE),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), "device"),
        *((RuntimeError(words), "network") for words in BROKEN_NETWORK),
        (torch.distributed.DistBackendError("NCCL communicator was aborted"), "network"),
        (LoaderError("a loader worker was killed"), "loader"),
        (UserError("there is no GPU here"), "user"),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), "error"),
        (KeyError("x"), "error"),
    ],
)
def test_failure_classes(error, expected):
    outcome = failure(error)
    assert outcome["failure_class"] == expected
    assert "\n" not in outcome["failure_message"]
    if not isinstance(error, UserError | LoaderError) or expected == "oom":  # those explain themselves
        assert type(error).__name__ in outcome["failure_message"]


def test_the_same_seed_in_another_process_gives_identical_rows(store, tmp_path):
    run(make_trial(), store)
    other = ResultsStore(str(tmp_path / "other"), "test")
    other.create()
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, other.results], check=True, cwd=Path(__file__).parent)
    assert result([store.read_trial("0000")]) == result([other.read_trial("0000")])
    assert result(store.read_rounds("0000")) == result(other.read_rounds("0000"))


def test_a_killed_trial_goes_on_from_its_last_round_to_the_same_row(store, tmp_path):
    run(make_trial(), store)
    other = ResultsStore(str(tmp_path / "other"), "test")
    other.create()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, other.results, "sleep"], cwd=Path(__file__).parent
    )
    deadline = time.monotonic() + 120
    while other.read_checkpoint("0000") is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert other.read_trial("0000") is None
    num_before = len(other.read_rounds("0000"))
    assert 1 <= num_before < 3
    rounds = []

    def note(row, summary):
        rounds.append(row["round"])
        return Decision.CONTINUE

    row = run(make_trial(), other, on_round=note)
    assert rounds == list(range(num_before, 3))
    assert row["retries"] == 1
    assert row["lost_seconds"] >= 0
    assert result([store.read_trial("0000")]) == result([other.read_trial("0000")])
    assert result(store.read_rounds("0000")) == result(other.read_rounds("0000"))


def test_a_trial_that_is_told_to_stop_has_no_row_and_goes_on_later_to_the_same_row(store, tmp_path):
    run(make_trial(), store)
    other = ResultsStore(str(tmp_path / "other"), "test")
    other.create()
    assert run(make_trial(), other, on_round=lambda row, summary: Decision.STOP) is None
    assert other.read_trial("0000") is None
    assert len(other.read_rounds("0000")) == 1
    run(make_trial(), other)
    assert result([store.read_trial("0000")]) == result([other.read_trial("0000")])
    assert result(store.read_rounds("0000")) == result(other.read_rounds("0000"))


def test_a_pruned_trial_has_the_metrics_of_its_last_round_and_no_test_accuracy(store):
    row = run(make_trial(), store, on_round=lambda row, summary: Decision(row["round"] == 1))
    stored = store.read_trial("0000")
    rounds = store.read_rounds("0000")
    assert (row["state"], stored["state"], stored["rounds_done"]) == ("pruned", "pruned", 2)
    assert [each["round"] for each in rounds] == [0, 1]
    assert stored["val_top1"] == rounds[1]["val_top1"]
    assert stored["unique_values"] == rounds[1]["unique_values"]
    assert (stored["test_top1"], stored["size_bytes"]) == (None, None)
    assert store.read_model("0000") is None
    assert store.read_checkpoint("0000") is None


def hungry_mlp(pretrained: bool = False, **kwargs):
    """A network that asks for terabytes where it sees 128 images at once, and for little where it sees 64."""
    network = create_model("digits_mlp", **kwargs)
    network.register_forward_pre_hook(
        lambda module, inputs: (torch.empty(2 ** (len(inputs[0]) // 3), dtype=torch.uint8), None)[1]
    )
    return network


def test_a_trial_that_runs_out_of_memory_goes_on_with_smaller_parts_of_its_batches(store):
    register_model(hungry_mlp)
    small = ("evaluation.batch_size=32", "evaluation.recalibrate_bn=false", "baseline.epochs=0", "model.random=true")
    row = run(make_trial("model.name=hungry_mlp", "training.batch_size=128", *small), store)
    assert row["state"] == "complete", row["failure_message"]
    assert row["micro_batches"] == 2
    plain = run(make_trial("model.name=digits_mlp", "training.batch_size=128", *small, trial_id="0001"), store)
    for one, two in zip(store.read_rounds("0000"), store.read_rounds("0001"), strict=True):
        assert one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-4)
        assert one["val_top1"] == pytest.approx(two["val_top1"], abs=0.02)
    assert plain["micro_batches"] == 1


def test_a_row_names_its_versions_and_its_configuration(store):
    run(make_trial(), store)
    row = store.read_trial("0000")
    assert json.loads(row["config_json"])["method"]["name"] == "pwfn"
    assert json.loads(row["versions_json"])["torch"] == torch.__version__


IN_ANOTHER_PROCESS = """
import sys, time, torch
sys.path.append("..")  # what all tests share
torch.set_num_threads(1)
from pwfn.results.store import ResultsStore
from test_trial import go_on, make_trial, run
wait = (lambda row, summary: time.sleep(60)) if "sleep" in sys.argv else go_on
run(make_trial(), ResultsStore(sys.argv[1], "test"), wait)
"""


def test_a_network_that_nobody_trained_is_refused_before_it_is_built(store):
    row = run(make_trial("baseline.epochs=0"), store)
    assert (row["state"], row["failure_class"]) == ("failed", "user")
    assert row["failure_message"].startswith("model.name=digits_mlp: its weights are random, as none are loaded")
    assert store.read_baseline(baseline_key(make_trial("baseline.epochs=0").config)) is None


def test_what_shares_values_is_said_before_and_kept_with_the_result(store, caplog):
    with caplog.at_level(logging.INFO, logger="pwfn"):
        row = run(make_trial("model.name=digits_cnn"), store)
    assert "network: digits_cnn, 32,050 parameters" in caplog.text
    assert "weights: drawn at random" in caplog.text
    assert "sharing values: 99.25% of the parameters; not norm layers 0.75%" in caplog.text
    assert row["left_out"] == ("norm layers 0.75%",)
    assert row["coverage"] == pytest.approx(31810 / 32050)


@pytest.mark.parametrize("held", ["true", "false"])
def test_broken_images_that_were_left_out_are_counted_in_the_row(store, tmp_path, held):
    for part in ("train", "val"):
        fill(tmp_path / "pictures" / part, ("ant", "bee"), 16)
    for path in ("train/ant/3.png", "val/ant/0.png", "val/bee/5.png"):
        (tmp_path / "pictures" / path).write_bytes(b"broken")
    overrides = (
        "data.name=imagefolder", f"data.root={tmp_path / 'pictures'}", "data.channels=1", "data.image_size=8",
        "data.train_images=null", "data.test_images=null", "data.loader_workers=0", f"data.in_memory={held}",
        "data.broken_images=skip", "baseline.batch_size=4", "training.batch_size=4",
    )  # fmt: skip
    row = run(make_trial(*overrides), store)
    assert row["state"] == "complete", row["failure_message"]
    assert store.read_trial("0000")["num_broken_images"] == 3
