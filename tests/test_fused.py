"""The functions that are one kernel on a GPU: compiled for this CPU by the same compiler, beside plain operations."""

import numpy as np
import pytest
import torch
from torch._inductor import metrics

import pwfn.fused
from pwfn.descent import sgd_, sum_of_squares
from pwfn.fused import fused
from pwfn.methods.pwfn.posterior import sample_, sigma_gradient_and_square_
from pwfn.methods.qat.assignment import _assign_and_show_, _sums_by_value
from pwfn.methods.wfn.pull import Pull, add_pull_, pull_

N = 3001


def flat(seed, scale=1.0):
    return scale * torch.randn(N, generator=torch.Generator().manual_seed(seed))


def mask(seed):
    return flat(seed) > 0


REGULARIZERS = [{"kind": kind, "strength": 0.3, "target": 0.05} for kind in ("linear", "exponential")]
PULL = Pull(np.linspace(-2, 2, 9), temperature=0.05, zero_distance=2.0**-7, largest=4.0).table
STEP = {"momentum": 0.9, "weight_decay": 0.01, "clip_norm": 2.0}
CASES = {
    "sample_": (sample_, lambda: ((torch.zeros(N), flat(1), flat(2, 0.01), flat(3)), {})),
    **{
        f"sigma_gradient_and_square_, {kind['kind']}": (
            sigma_gradient_and_square_,
            lambda kind=kind: (
                (flat(1), flat(2), flat(3)[:50], flat(4, 0.05), mask(5), (mask(6), mask(6), mask(7)[:50])), kind
            ),
        )
        for kind in REGULARIZERS
    },
    "sigma_gradient_and_square_, nothing held": (
        sigma_gradient_and_square_,
        lambda: ((flat(1), flat(2), flat(3)[:50], flat(4, 0.05), mask(5), (None,) * 3), REGULARIZERS[0]),
    ),
    "sum_of_squares": (sum_of_squares, lambda: ((flat(1), mask(2)), {})),
    "sgd_": (sgd_, lambda: ((flat(1), flat(2), flat(3), mask(4), torch.tensor(9.0), torch.tensor(0.1)), STEP)),
    "_assign_and_show_": (
        _assign_and_show_,
        lambda: (
            (torch.zeros(N, dtype=torch.uint8), torch.zeros(N), flat(1), torch.tensor([-0.5, 0.1, 0.7]),
             torch.tensor([-1.0, 0.0, 0.2, 1.2])), {},
        ),
    ),
    "_sums_by_value": (_sums_by_value, lambda: ((mask(1).to(torch.uint8), flat(2), 2), {})),
    "pull_": (pull_, lambda: ((torch.zeros(N), flat(1), mask(2), PULL), {})),
    "add_pull_": (add_pull_, lambda: ((flat(1), flat(2), torch.tensor(0.3)), {})),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_the_compiled_function_gives_the_numbers_of_its_operations(name):
    """To 4 units in the last place of the largest term: a compiler may round a product and a sum together."""
    function, make = CASES[name]
    args, kwargs = make()
    expected = function(*args, **kwargs)  # on a CPU, not compiled
    args_again, _ = make()
    metrics.reset()
    compiled = torch.compile(function.__wrapped__, fullgraph=True, dynamic=True)
    found = compiled(*args_again, **kwargs)
    assert 1 <= metrics.generated_kernel_count <= 1 + 2 * (found is not None)
    for one, other in zip((found, *args_again), (expected, *args), strict=True):
        if isinstance(one, torch.Tensor):
            torch.testing.assert_close(one, other, rtol=1e-6 if one.dim() else 1e-5, atol=5e-7)


def test_a_machine_without_a_compiler_says_so_once_and_goes_on(monkeypatch, caplog):
    @fused
    def add_one_(numbers):
        numbers.add_(1)

    def cannot(*args, **kwargs):
        raise torch._inductor.exc.TritonMissing("no Triton here")

    monkeypatch.setattr(pwfn.fused, "_is_on_gpu", lambda args: True)
    monkeypatch.setattr(pwfn.fused._Switch, "is_on", True)
    monkeypatch.setattr(torch, "compile", lambda function, **options: cannot)
    numbers = torch.zeros(3)
    for _ in range(2):
        add_one_(numbers)
    assert numbers.tolist() == [2.0] * 3
    assert len(caplog.messages) == 1
    assert "not compiled" in caplog.text


def test_an_error_of_the_device_is_not_taken_for_one_of_the_compiler(monkeypatch):
    @fused
    def add_one_(numbers):
        numbers.add_(1)

    def fails(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pwfn.fused, "_is_on_gpu", lambda args: True)
    monkeypatch.setattr(torch, "compile", lambda function, **options: fails)
    with pytest.raises(torch.OutOfMemoryError):
        add_one_(torch.zeros(3))
