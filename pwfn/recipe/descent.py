"""One step of an optimiser and a schedule that timm makes by name, on the parameters of a network."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from pwfn.config import BaselineConfig
from pwfn.data.contract import Preprocessing
from pwfn.data.transforms import automatic_augmentation
from pwfn.descent import Descent
from pwfn.errors import UserError, first_line, nearest_names
from pwfn.parameters import FlatParameters
from pwfn.recipe.muon import use_float32_where_bfloat16_is_slow
from pwfn.replicas import Replicas

REFUSALS = (TypeError, ValueError, AssertionError, RuntimeError, LookupError, AttributeError)
"""What timm's and torch's optimisers raise for arguments that they do not take."""

RANDOM = ("kron", "kronc", "kronw")
"""Optimisers that draw from a generator of their own, so that a training could not go on as it would have."""


class NamedDescent(Descent):
    """A new optimiser of timm's for a network, with its schedule; the norm of the gradient is limited as elsewhere.

    Optimisers that look at whole tensors (lamb, adafactor, muon) see the network's own, which are views of the buffer.

    Args:
        network: its parameters stand in `flat`.
        flat: the buffer with all parameters of the network, and their gradients.
        config: names the optimiser; `config.opt` is not None.
        steps_per_epoch: number of training steps in an epoch.
        replicas: those that take the steps together.

    Raises:
        UserError: timm has no such optimiser, or refuses an argument.
    """

    def __init__(
        self,
        network: nn.Module,
        flat: FlatParameters,
        config: BaselineConfig,
        *,
        steps_per_epoch: int,
        replicas: Replicas,
    ) -> None:
        self.values = flat.values
        self.gradient = flat.gradient
        self.config = config
        self.replicas = replicas
        self.free = None
        self.is_fused = False
        self.optimizer = make_optimizer(network, config)
        self.schedule, self.num_epochs = make_schedule(self.optimizer, config, steps_per_epoch)
        self.num_steps_done = 0

    @torch.no_grad()
    def step(self) -> None:
        """Update the values once; `gradient` must hold the gradient of this replica's images, and is overwritten."""
        self.replicas.mean_(self.gradient)
        self.clip()
        self.optimizer.step()
        self.num_steps_done += 1
        self.schedule.step_update(self.num_steps_done)

    def state(self) -> dict[str, Tensor]:
        """Return copies, on the CPU, of the tensors that another descent on the same buffers needs to continue."""
        # What an optimiser keeps differs from one to the next (numbers, lists, a second optimiser): all of it is one
        # tensor of bytes.
        content = io.BytesIO()
        torch.save(self.optimizer.state_dict(), content)
        kept = torch.frombuffer(bytearray(content.getbuffer()), dtype=torch.uint8)
        return {"optimizer": kept, "num_steps_done": torch.tensor(self.num_steps_done)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned; the following steps are the same to the last bit."""
        content = io.BytesIO(state["optimizer"].numpy().tobytes())
        self.optimizer.load_state_dict(torch.load(content, map_location="cpu", weights_only=True))
        self.num_steps_done = int(state["num_steps_done"])


def make_optimizer(network: nn.Module, config: BaselineConfig) -> torch.optim.Optimizer:
    """Make the optimiser that `config.opt` names, for all parameters of a network, in timm's groups.

    Raises:
        UserError: timm has no such optimiser, or refuses an argument.
    """
    name = str(config.opt)
    use_float32_where_bfloat16_is_slow()
    if name in RANDOM:
        raise UserError(f"baseline.opt={name} draws random numbers that no checkpoint keeps; use another optimiser")
    try:
        if get_optimizer_info(name.lower().rpartition("_")[2]).second_order:
            raise UserError(f"baseline.opt={name} needs second derivatives, which training here does not compute")
    except ValueError as error:
        known = list_optimizers()
        raise UserError(f"baseline.opt: timm.optim has no {name!r}{nearest_names(name, known)}") from error
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            network,
            opt=name,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            layer_decay=config.layer_decay,
            **config.opt_kwargs,
        )
    except REFUSALS as error:
        raise UserError(f"baseline.opt: {_named(config)} cannot be made: {first_line(error)}") from error
    return optimizer


def _check_step(config: BaselineConfig) -> None:
    """Take one step with a small layer: some optimisers look at their arguments only then.

    Raises:
        UserError: the optimiser fails.
    """
    layer = nn.Linear(4, 4)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = make_optimizer(layer, config.model_copy(update={"layer_decay": None}))
    try:
        optimizer.step()
    except REFUSALS as error:
        raise UserError(f"baseline.opt: {_named(config)} cannot take a step: {first_line(error)}") from error


def _named(config: BaselineConfig) -> str:
    return f"{config.opt} with opt_kwargs={config.opt_kwargs}" if config.opt_kwargs else str(config.opt)


def make_schedule(optimizer: torch.optim.Optimizer, config: BaselineConfig, steps_per_epoch: int) -> tuple[Any, int]:
    """Make the schedule that `config.sched` names; return it and the number of epochs to train.

    Raises:
        UserError: timm refuses the lengths of its parts.
    """
    try:
        schedule, num_epochs = create_scheduler_v2(
            optimizer,
            sched=config.sched,
            num_epochs=config.epochs,
            warmup_epochs=config.warmup_epochs,
            warmup_lr=config.warmup_lr,
            min_lr=config.min_lr,
            cooldown_epochs=config.cooldown_epochs,
            decay_epochs=config.decay_epochs,
            decay_milestones=list(config.decay_milestones),
            decay_rate=config.decay_rate,
            step_on_epochs=False,
            updates_per_epoch=steps_per_epoch,
        )
    except (ValueError, AssertionError) as error:
        raise UserError(f"baseline.sched={config.sched}: {first_line(error)}") from error
    return schedule, int(num_epochs)


def check_recipe(config: BaselineConfig, network: nn.Module, preprocessing: Preprocessing, num_images: int) -> None:
    """Refuse names and arguments that timm does not know, before anything is trained.

    Args:
        config: of the training.
        network: that is trained.
        preprocessing: of the network.
        num_images: to train on.

    Raises:
        UserError: names the field.
    """
    if config.epochs > 0 and config.opt is not None:
        make_schedule(make_optimizer(network, config), config, max(1, num_images // config.batch_size))
        _check_step(config)
    if config.aa is not None:
        automatic_augmentation(preprocessing, config.aa)
