"""Training whose result is the moving average of the weights of all steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timm.utils import ModelEmaV3
from torch import Tensor, nn

from pwfn.descent import Descent
from pwfn.parameters import FlatParameters, buffers_of, copied, restore_buffers_, under
from pwfn.training import Learner


class AveragingLearner(Learner):
    """Trains a network, and averages its weights and buffers after each step."""

    def __init__(
        self, network: nn.Module, descent: Descent, flats: Sequence[FlatParameters], *, decay: float, warmup: bool
    ) -> None:
        super().__init__(network, descent, flats)
        self._average = ModelEmaV3(network, decay=decay, use_warmup=warmup)
        self._num_steps_done = 0

    @property
    def average(self) -> nn.Module:
        """A network with the average."""
        module: nn.Module = self._average.module
        return module

    def step(self) -> None:
        """Update from the gradients of the backward pass, then average."""
        super().step()
        self._num_steps_done += 1
        self._average.update(self.network, step=self._num_steps_done)

    def state(self) -> dict[str, Tensor]:
        """Copy to the CPU what `load_state` needs to go on after a step."""
        buffers = {f"own.average.{name}": tensor for name, tensor in buffers_of(self.average).items()}
        parameters = {f"average.{name}": tensor for name, tensor in self.average.named_parameters()}
        return {**super().state(), **copied({**buffers, **parameters})}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned, on the same buffers: the same steps follow, to the last bit."""
        super().load_state(state)
        kept = under("average.", state)
        for name, parameter in self.average.named_parameters():
            parameter.data.copy_(kept[name])
        restore_buffers_(self.average, under("own.average.", state))
        self._num_steps_done = int(state["descent.num_steps_done"])
