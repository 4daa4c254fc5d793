"""The scripts of launchers/cluster with a real Ray, on hosts that nobody else reaches: the loopback of a network of
their own. Slurm alone is stood in for."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pwfn.results.store import ResultsStore

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "launchers" / "cluster"
OWN_NETWORK = ["unshare", "--net", "--map-root-user", "bash", "-c", 'ip link set lo up && exec "$@"', "own-network"]


@pytest.fixture
def environment() -> dict[str, str]:
    """A shell of a user's, without what these tests set for a Ray of one machine."""
    if not shutil.which("unshare") or subprocess.run([*OWN_NETWORK, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs a network of its own: `unshare --net --map-root-user` and `ip` of Linux")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GLOO_"))}
    path = [Path(__file__).parent / "stand_ins", Path(sys.executable).parent, os.environ["PATH"]]
    return {**kept, "PATH": os.pathsep.join(map(str, path))}


@pytest.fixture
def job(tmp_path) -> Iterator[int]:
    """The number of a job, whose Ray is ended and whose folders are removed whatever happens."""
    (tmp_path / "launchers").symlink_to(ROOT / "launchers")  # a folder to submit from that the tests may write to
    number = os.getpid()
    yield number
    for process in processes_of(number):
        process.kill()
    for folder in Path("/tmp").glob(f"ray-{number}-*"):
        shutil.rmtree(folder)


def processes_of(job: int) -> list[psutil.Process]:
    """Find the processes of a job's Ray by the folders they were started with."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(f"/tmp/ray-{job}-" in argument for argument in process.info["cmdline"] or ()):
            found.append(process)
    return found


def start_slurm_job(job: int, folder: Path, environment: dict[str, str], *search: str) -> subprocess.Popen[str]:
    """Run slurm.sh as Slurm does on the first of two nodes of one CPU each."""
    slurm = {
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NAME": "pwfn",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }
    return subprocess.Popen(
        [*OWN_NETWORK, "bash", CLUSTER / "slurm.sh", *search],
        cwd=folder, env=environment | slurm, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
def test_a_slurm_job_searches_on_all_its_nodes(job, tmp_path, environment):
    search = ["--space", "digits.yaml", "--results", "results", "--trials", "2", "--set", "baseline.epochs=1"]
    search += ["search.baselines=false"]
    running = start_slurm_job(job, tmp_path, environment, *search)
    output, _ = running.communicate(timeout=280)
    assert running.returncode == 0, output
    assert "2 of 2 Ray nodes" in output
    rows = ResultsStore(str(tmp_path / "results"), "digits").read_trials()
    assert [row["state"] for row in rows] == ["complete", "complete"]
    # Each node has one CPU, and a trial takes one: two at the same time are on two nodes.
    assert max(row["started_at"] for row in rows) < min(row["finished_at"] for row in rows)
    assert not processes_of(job)
    assert not (tmp_path / "scontrol.log").exists()
    assert "Ray runtime started" in (tmp_path / f"pwfn-{job}-ray.out").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_slurm_job_that_runs_out_of_time_queues_itself_again_and_goes_on(job, tmp_path, environment):
    search = ["--space", "digits.yaml", "--results", "results", "--trials", "3"]
    search += ["--set", "search.baselines=false"]
    first = start_slurm_job(job, tmp_path, environment, *search)
    store = ResultsStore(str(tmp_path / "results"), "digits")
    wait_for(lambda: any(store.read_rounds(proposal["trial_id"]) for proposal in store.read_proposals()))
    first.send_signal(signal.SIGUSR1)
    output, _ = first.communicate(timeout=280)
    assert first.returncode == 0, output
    assert (tmp_path / "scontrol.log").read_text() == f"requeue {job}\n"
    assert not processes_of(job)
    begun = {proposal["trial_id"]: store.read_rounds(proposal["trial_id"]) for proposal in store.read_proposals()}
    assert len(store.read_trials()) < 3

    again = start_slurm_job(job, tmp_path, environment, *search)
    output, _ = again.communicate(timeout=280)
    assert again.returncode == 0, output
    assert [row["state"] for row in store.read_trials()] == ["complete"] * 3
    for trial_id, rounds in begun.items():
        assert store.read_rounds(trial_id)[: len(rounds)] == rounds  # kept, not done again
    assert (tmp_path / "scontrol.log").read_text() == f"requeue {job}\n"


def wait_for(condition, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)


ONE_NODE = """
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
ray get-auth-token --generate >/dev/null
ray start --head --num-cpus=1 --temp-dir="$1" --block >"$2/ray.out" 2>&1 &
trap 'kill $!; wait' EXIT
until ray job list >/dev/null 2>&1; do sleep 1; done
shift 2
"$@"
"""
"""A cluster of one node, and a command beside it."""


def run_beside_ray(script: str, job: int, folder: Path, command: list, **options) -> subprocess.CompletedProcess[str]:
    """Run a script that starts Ray and then the command, in a network of its own; it has to succeed."""
    done = subprocess.run(
        [*OWN_NETWORK, "bash", "-c", script, "-", f"/tmp/ray-{job}-0", folder, *command],
        capture_output=True, text=True, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_is_submitted_to_a_cluster_that_runs(job, tmp_path, environment):
    submit = [CLUSTER / "submit.sh", "1", "--space", "digits.yaml", "--results", tmp_path / "results", "--trials", "1"]
    submit += ["--set", "data.train_images=100", "training.steps_per_epoch=1", "baseline.epochs=1"]
    submit += ["search.baselines=false"]
    done = run_beside_ray(ONE_NODE, job, tmp_path, submit, cwd=ROOT, env=environment, timeout=280)
    assert "1 of 1 Ray nodes" in done.stdout
    assert "1/1 done" in done.stdout
    assert [row["state"] for row in ResultsStore(str(tmp_path / "results"), "digits").read_trials()] == ["complete"]
    assert not processes_of(job)


NODES_ON_DEMAND = """
cluster_name: on-demand
max_workers: 2
provider: {type: fake_multinode, use_node_id_as_ip: true, disable_node_updaters: true}
available_node_types:
  ray.head.default: {resources: {CPU: 0}, node_config: {}, max_workers: 0}
  worker: {resources: {CPU: 1}, node_config: {}, min_workers: 0, max_workers: 2}
head_node_type: ray.head.default
upscaling_speed: 1.0
idle_timeout_minutes: 5
auth: {ssh_user: nobody}
docker: {}
file_mounts: {}
cluster_synced_files: []
file_mounts_sync_continuously: false
rsync_exclude: []
rsync_filter: []
initialization_commands: []
setup_commands: []
head_setup_commands: []
worker_setup_commands: []
head_start_ray_commands: []
worker_start_ray_commands: []
"""
"""For Ray's own stand-in for a cloud, whose nodes are processes on this machine; `ray start` wants every key. As in a
cloud, nodes outlive a head that just stops; the fixture ends them."""

NO_NODE_YET = """
set -e
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
ray get-auth-token --generate >/dev/null
RAY_FAKE_CLUSTER=1 AUTOSCALER_UPDATE_INTERVAL_S=1 ray start --head --num-cpus=0 --temp-dir="$1" \
    --autoscaling-config="$2/nodes.yaml" --block >"$2/ray.out" 2>&1 &
trap 'kill $!; wait' EXIT
until ray job list >/dev/null 2>&1; do kill -0 $! || exit 1; sleep 1; done
shift 2
! "$@"
"$@" --set search.max_concurrent=2
"""
"""A cluster that is a head without CPUs; a search that does not ask for nodes, and one that does."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_begins_without_nodes_and_gets_them_on_demand(job, tmp_path, environment):
    (tmp_path / "nodes.yaml").write_text(NODES_ON_DEMAND)
    search = [sys.executable, ROOT / "launchers" / "search.py", "--address", "127.0.0.1:6379", "--space", "digits.yaml"]
    search += ["--results", tmp_path / "results", "--trials", "2"]
    search += ["--set", "data.train_images=100", "training.steps_per_epoch=1", "baseline.epochs=1"]
    search += ["search.baselines=false"]
    done = run_beside_ray(NO_NODE_YET, job, tmp_path, search, cwd=tmp_path, env=environment, timeout=800)
    assert "but the cluster has 0; try --set resources.cpus_per_worker=... or --set resources.workers=..., or " in (
        done.stderr
    )
    assert "but the cluster has 0: waiting for nodes that start on demand" in done.stdout
    assert "2/2 done" in done.stdout
    rows = ResultsStore(str(tmp_path / "results"), "digits").read_trials()
    assert [row["state"] for row in rows] == ["complete"] * 2
