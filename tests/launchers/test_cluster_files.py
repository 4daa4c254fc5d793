"""The files of launchers/cluster, as far as they can be checked without the clusters they are for."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import boto3
import jsonschema
import pytest
from moto import mock_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE
from ray.scripts.scripts import start as ray_start
from ruamel.yaml import YAML

from pwfn import __version__
from pwfn.commands import run

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "launchers" / "cluster"
SCRIPTS = [*sorted(CLUSTER.glob("*.sh")), *sorted((Path(__file__).parent / "stand_ins").iterdir())]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pinned(package: str) -> str:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    return pins[package]


# Versions and commands


def test_images_and_versions_are_those_the_project_is_tested_with():
    texts = {path.name: path.read_text() for path in CLUSTER.iterdir() if path.is_file()}
    images = {(name, tag) for name, text in texts.items() for tag in re.findall(r"rayproject/ray:(\S+)", text)}
    python = PROJECT["tool"]["mypy"]["python_version"].replace(".", "")
    assert images == {(name, f"{pinned('ray')}-py{python}-gpu") for name in ("aws.yaml", "Dockerfile")}
    own = {(name, tag) for name, text in texts.items() for tag in re.findall(r"/pwfn:([^\s/]+)", text)}
    assert own == {(name, __version__) for name in ("README.md", "Dockerfile", "kuberay.yaml")}
    assert rayjob()["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")


@pytest.mark.parametrize("name", ["README.md", "slurm.sh", "submit.sh"])
def test_every_search_that_is_shown_has_a_plan(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    shown = re.findall(r"--space \S+ --results \S+(?: --set \S+)?", (CLUSTER / name).read_text())
    assert shown
    for options in {*shown} - {"--space SPACE --results PLACE"}:
        code = run("search", [*here(shlex.split(options), tmp_path), "--dry-run"])
        check_plan(code, *capsys.readouterr())


def here(options: list[str], folder: Path) -> list[str]:
    """Put results, which are shown in a bucket, into a folder of this machine."""
    place = options.index("--results") + 1
    return [*options[:place], str(folder / "results"), *options[place + 1 :]]


def check_plan(code: int, output: str, errors: str) -> None:
    """That the data is not on this machine is said after the plan."""
    assert "Plan of" in output, errors
    assert code == 0 or re.fullmatch(r"error: data\.root: folder \S+ does not exist\n", errors), errors


# Shell


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_correct_shell(script):
    shellcheck = shutil.which("shellcheck", path=Path(sys.executable).parent)
    assert shellcheck, "comes with the dev extra"
    for command in (["bash", "-n", script], [shellcheck, script]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert script.stat().st_mode & 0o111


def test_slurm_sees_every_directive_and_warns_before_the_script_stops_waiting():
    lines = (CLUSTER / "slurm.sh").read_text().splitlines()
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [line.split(maxsplit=1)[1] for line in lines[:first_command] if line.startswith("#SBATCH")]
    assert len(directives) == sum("SBATCH" in line for line in lines)
    assert "--requeue" in directives
    signal = next(line for line in directives if line.startswith("--signal="))
    receiver, seconds = signal.removeprefix("--signal=").split("@")
    assert receiver == "B:USR1"  # the script alone: Ray on the nodes goes on
    waits = re.search(r"timeout (\d+) tail --pid", "\n".join(lines))
    assert waits is not None
    assert int(waits[1]) < int(seconds)


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("slurm.sh", [], "is not the root of the checkout"),
        ("submit.sh", ["2", "--space", "digits"], "usage, from the root"),
    ],
)
def test_scripts_refuse_another_folder(script, arguments, expected, tmp_path):
    done = subprocess.run([CLUSTER / script, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["2"], ["--space", "digits", "--results", "x"], ["-2", "--space", "digits"]])
def test_submitting_needs_a_number_of_nodes_and_a_search(arguments):
    done = subprocess.run([CLUSTER / "submit.sh", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "submit.sh NODES --space SPACE" in done.stderr


# AWS


@pytest.fixture(scope="module")
def aws_cluster(tmp_path_factory):
    """The cluster's configuration, prepared and completed as `ray up` does it, at a stand-in for AWS."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()  # Ray keeps the key pair there
    config = prepare_config(YAML(typ="safe").load(CLUSTER / "aws.yaml"))
    validate_config(config)
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, value in {"AWS_ACCESS_KEY_ID": "-", "AWS_SECRET_ACCESS_KEY": "-", "HOME": str(home)}.items():
            patch.setenv(name, value)
        boto3.client("iam").create_instance_profile(InstanceProfileName="pwfn-ray")
        completed = AWSNodeProvider.bootstrap_config(config)
        yield AWSNodeProvider.fillout_available_node_types_resources(completed)


@pytest.mark.slow
def test_aws_starts_what_the_file_asks_for(aws_cluster):
    provider = AWSNodeProvider(aws_cluster["provider"], aws_cluster["cluster_name"])
    for name, kind in aws_cluster["available_node_types"].items():
        provider.create_node(kind["node_config"], {TAG_RAY_NODE_KIND: name, TAG_RAY_USER_NODE_TYPE: name}, 1)
    ec2 = boto3.client("ec2", region_name=aws_cluster["provider"]["region"])
    started = [one for batch in ec2.describe_instances()["Reservations"] for one in batch["Instances"]]
    by_type = {tag["Value"]: one for one in started for tag in one["Tags"] if tag["Key"] == TAG_RAY_USER_NODE_TYPE}
    assert by_type.keys() == {"head", "gpu"}
    assert by_type["gpu"]["InstanceLifecycle"] == "spot"
    assert "InstanceLifecycle" not in by_type["head"]
    for instance in by_type.values():
        assert instance["IamInstanceProfile"]["Arn"].endswith("/pwfn-ray")
        [group] = ec2.describe_security_groups(GroupIds=[g["GroupId"] for g in instance["SecurityGroups"]])[
            "SecurityGroups"
        ]
        open_to_all = [rule.get("FromPort") for rule in group["IpPermissions"] if rule["IpRanges"]]
        assert open_to_all == [22]


@pytest.mark.slow
def test_aws_trials_run_on_the_gpu_nodes_alone(aws_cluster):
    head, gpu = (aws_cluster["available_node_types"][name] for name in ("head", "gpu"))
    assert aws_cluster["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    assert gpu["resources"]["GPU"] == 1
    assert gpu["resources"]["CPU"] == 8
    assert gpu["min_workers"] == gpu["max_workers"] == aws_cluster["max_workers"]


@pytest.mark.slow
def test_aws_nodes_get_the_pinned_packages_and_the_token(aws_cluster):
    folder = "/home/ray/pwfn"
    install = f"pip install --quiet --constraint {folder}/constraints.txt {folder}"
    assert aws_cluster["head_setup_commands"] == aws_cluster["worker_setup_commands"] == [install]
    mounts = dict(aws_cluster["file_mounts"])
    assert mounts.pop("/home/ray/.ray/auth_token") == "~/.ray/auth_token"
    assert mounts == {f"{folder}/{name}": name for name in ("pyproject.toml", "constraints.txt", "README.md")}
    assert all((ROOT / name).is_file() for name in mounts.values())
    assert "--env RAY_AUTH_MODE=token" in aws_cluster["docker"]["run_options"]


# Kubernetes


def rayjob() -> dict:
    return YAML(typ="safe").load(CLUSTER / "kuberay.yaml")


def fields(required: dict, optional: dict | None = None) -> dict:
    """A schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": [*required],
        "additionalProperties": False,
    }


TEXT = {"type": "string", "minLength": 1}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
COUNT = {"type": "integer", "minimum": 0}
QUANTITIES = {
    "type": "object",
    "propertyNames": {"enum": ["cpu", "memory", "nvidia.com/gpu"]},
    "additionalProperties": {"type": "string", "pattern": "^[0-9]+(Mi|Gi)?$"},
}
START_PARAMETERS = {
    "type": "object",
    "propertyNames": {"enum": [name.removeprefix("--") for option in ray_start.params for name in option.opts]},
    "additionalProperties": {"type": "string"},
}
CONTAINER = fields(
    {"name": NAME, "image": TEXT, "resources": fields({"requests": QUANTITIES, "limits": QUANTITIES})},
    {
        "env": {"type": "array", "items": fields({"name": TEXT, "value": {"type": "string"}})},
        "volumeMounts": {
            "type": "array",
            "items": fields({"name": NAME, "mountPath": {"pattern": "^/"}}, {"readOnly": {"type": "boolean"}}),
        },
    },
)
CLAIM = fields({"claimName": NAME}, {"readOnly": {"type": "boolean"}})
POD = fields(
    {"containers": {"type": "array", "items": CONTAINER, "minItems": 1}},
    {
        "serviceAccountName": NAME,
        "volumes": {"type": "array", "items": fields({"name": NAME, "persistentVolumeClaim": CLAIM})},
    },
)
GROUP = {"rayStartParams": START_PARAMETERS, "template": fields({"spec": POD})}
RAY_CLUSTER = fields(
    {
        "rayVersion": TEXT,
        "authOptions": fields({"mode": {"enum": ["token", "disabled"]}}),
        "headGroupSpec": fields(GROUP),
        "workerGroupSpecs": {
            "type": "array",
            "items": fields(
                {"groupName": NAME, "replicas": COUNT, "minReplicas": COUNT, "maxReplicas": COUNT, **GROUP}
            ),
        },
    }
)
RAY_JOB = fields(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": fields({"name": NAME}),
        "spec": fields(
            {"entrypoint": TEXT, "rayClusterSpec": RAY_CLUSTER},
            {"backoffLimit": COUNT, "shutdownAfterJobFinishes": {"type": "boolean"}},
        ),
    }
)
"""The fields of KubeRay's RayJob and of Kubernetes' pods that the manifest uses, by their reference documentation."""


def test_the_rayjob_has_the_fields_that_kuberay_knows():
    jsonschema.validate(rayjob(), RAY_JOB)


def test_trials_run_in_the_worker_pods_with_all_they_ask_for():
    cluster = rayjob()["spec"]["rayClusterSpec"]
    head, [group] = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    assert cluster["authOptions"] == {"mode": "token"}
    for pod in (each["template"]["spec"] for each in (head, group)):
        [container] = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    images = {each["template"]["spec"]["containers"][0]["image"] for each in (head, group)}
    assert len(images) == 1


@pytest.mark.slow
def test_the_image_holds_what_the_rayjob_runs(tmp_path):
    """The files that the Dockerfile copies, without the rest of the checkout, are enough for the manifest's command."""
    folder = "/home/ray/pwfn"
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    assert f"WORKDIR {folder}" in lines
    for line in lines:
        if line.startswith("COPY"):
            *sources, target = shlex.split(line)[2:]
            for source in sources:
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, tmp_path / target)
    python, script, *options = shlex.split(rayjob()["spec"]["entrypoint"])
    assert (python, script) == ("python", f"{folder}/launchers/search.py")
    assert options[options.index("--address") + 1] == "auto"
    command = [sys.executable, tmp_path / "launchers" / "search.py", *here(options, tmp_path), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env={"PYTHONPATH": str(tmp_path)})
    check_plan(done.returncode, done.stdout, done.stderr)
    assert "Plan of deit" in done.stdout
