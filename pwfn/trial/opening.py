"""Opens what a trial works on: its data, its network, its device. What a process has opened it keeps for the next."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from pwfn.config import DataConfig, ModelConfig, ResourcesConfig, TrainingConfig, TrialConfig
from pwfn.data import Data, Preprocessing, Source, open_source
from pwfn.errors import UserError
from pwfn.exact import allow_tf32
from pwfn.fused import fuse
from pwfn.midway import Midway
from pwfn.models import build_network, preprocessing_of, record_preparation_
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.seeds import derive_seed
from pwfn.task import Task
from pwfn.trial.failures import building


def open_task(
    config: TrialConfig,
    model: ModelConfig,
    device: torch.device,
    replicas: Replicas,
    micro_batches: int = 1,
    midway: Midway | None = None,
) -> Task:
    """Build a network and the data it is given, on a device; allow TF32 in this process as the configuration says.

    Raises:
        MachineError: there is no memory for them.
    """
    own_arithmetic(config.training)
    with building():
        network = network_for(config, model, open_data(config))
        data = _data(config.data, config.split_seed, preprocessing_of(network), device)
        midway = Midway() if midway is None else midway
        return Task(network.to(device), data, config, device, replicas, micro_batches, midway=midway)


def own_arithmetic(training: TrainingConfig) -> None:
    """Set how this process computes on a GPU; TF32 is torch's default for convolutions, and not ours."""
    allow_tf32(training.tf32)
    torch.backends.cudnn.benchmark = training.cudnn_benchmark
    fuse(training.fused)


def open_midway(
    name: str, store: ResultsStore, replicas: Replicas, minutes: float, note: Callable[[], None] = lambda: None
) -> Midway:
    """Read the checkpoint of this name, and keep the next ones under it; `note` is called after each."""
    found = store.read_checkpoint(name)

    def write(state: dict[str, Tensor]) -> None:
        store.write_checkpoint(name, save(state))
        note()

    return Midway(
        write,
        seconds=60 * minutes,
        found=load(found) if found else None,
        replicas=replicas,
    )


def open_data(config: TrialConfig) -> Source:
    """Open the data of a trial, or take it as it was opened for the trial before in this process."""
    return _source(config.data, config.split_seed)


def network_for(config: TrialConfig, model: ModelConfig, source: Source) -> nn.Module:
    """Build a network for the classes and channels of the data, with the size and crop that the configuration asks for.

    Args:
        config: of the trial.
        model: the trial's, or another that only says how the network is built.
        source: the data.
    """
    network = build_network(
        model,
        num_classes=source.num_classes,
        in_channels=source.in_channels,
        image_size=config.data.image_size,
        seed=derive_seed(config.split_seed, "initial weights"),
    )
    record_preparation_(network, config.data)
    return network


@functools.lru_cache(maxsize=2)
def _source(config: DataConfig, seed: int) -> Source:
    return open_source(config, seed=seed)


@functools.lru_cache(maxsize=2)
def _data(config: DataConfig, seed: int, preprocessing: Preprocessing, device: torch.device) -> Data:
    """Prepare the images, or take them from an earlier trial of this process that had the same."""
    return _source(config, seed).prepare(preprocessing, device)


def free_memory() -> None:
    """Give back what this process holds for later use: images of other trials, and what torch's allocator caches."""
    _data.cache_clear()
    gc.collect()
    torch.cuda.empty_cache()


def own_device(resources: ResourcesConfig) -> torch.device:
    """Choose the device of this process, and set the number of its threads, by the resources of the trial.

    Where several trials use one GPU, each gets its share of the memory and no more: else one that grows takes the
    memory of its neighbours, who then fail or go on with smaller parts for good.

    Raises:
        UserError: a GPU is asked for, and this process sees none.
    """
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    if resources.gpus_per_worker > 0 and not torch.cuda.is_available():
        raise UserError(
            f"resources.gpus_per_worker={resources.gpus_per_worker:g}, but there is no GPU here; "
            "for the CPU: --set resources.gpus_per_worker=0"
        )
    if 0 < resources.gpus_per_worker < 1:
        torch.cuda.set_per_process_memory_fraction(resources.gpus_per_worker)
    return torch.device("cuda" if resources.gpus_per_worker > 0 else "cpu")
