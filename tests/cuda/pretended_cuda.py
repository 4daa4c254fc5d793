"""A CUDA device that is not there: tensors say cuda:0, hold CPU tensors, and obey CUDA's rules about devices.

The numbers are real, so whole trials run. Every operation passes `_dispatch`, which refuses what a GPU would refuse
(tensors of two devices, generators of the wrong one, `numpy()`), counts where the host has to wait for the device, the
kernels that are launched and the bytes that they move, and can be told to fail like a GPU that is out of memory or
broken, or to round like one that uses TF32.

It must be imported before torch, in a process of its own, and used inside `pretended_cuda()`. Everything runs in the
order of the program; what a GPU could do too early, as one stream does not wait for another, is refused. A CUDA graph
is the operations that were asked for, on the memory that they had. The device cannot show a GPU's own arithmetic, its
speed, its memory or NCCL.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib.util
import math
import os
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

assert "torch" not in sys.modules, "the pretended CUDA has to be there before torch is"
_LIBRARIES = Path(importlib.util.find_spec("torch").origin).parent / "lib"
for _name in ("libc10.so", "libtorch_cpu.so"):
    ctypes.CDLL(str(_LIBRARIES / _name), ctypes.RTLD_GLOBAL)
ctypes.CDLL(os.environ["PRETENDED_CUDA_GUARD"])  # guard.cpp, compiled

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes  # noqa: E402
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten  # noqa: E402

CUDA = torch.device("cuda", 0)

WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "_unique",
    "bincount", "equal", "is_nonzero", "histc", "multinomial", "repeat_interleave", "allclose",
}  # fmt: skip
"""Operations whose result, or its size, the host has to know: it waits for the device."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
WITH_NUMBERS = {"where", "masked_fill", "masked_fill_", "fill_", "clamp", "index_put_", "_fused_sgd_", "_fused_adam_"}
"""Operations beside the pointwise ones that take a CPU tensor without dimensions as a number."""
TF32_PRODUCTS = {
    "convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm",
}  # fmt: skip
"""Operations whose factors a GPU rounds to ten bits where TF32 is allowed."""


NO_KERNEL = {
    "view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "slice", "select", "split", "chunk",
    "split_with_sizes", "unbind", "unsqueeze", "squeeze", "detach", "alias", "as_strided", "diagonal", "unfold",
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "lift_fresh", "_reshape_alias", "set_",
    "resize_", "is_same_size", "narrow", "movedim", "_has_compatible_shallow_copy_type", "view_as_real",
}  # fmt: skip
"""Operations that launch nothing."""
NOT_READ = {"zero_", "fill_", "normal_", "random_", "uniform_", "bernoulli_"}
"""Operations that write their first tensor and do not read it."""
UNDETERMINED = {
    "index_add_", "index_add", "scatter_add_", "scatter_add", "cumsum", "kthvalue", "index_put_", "_index_put_impl_",
    "scatter_reduce_", "put_", "histc", "upsample_bicubic2d_backward", "upsample_bilinear2d_backward",
    "_adaptive_avg_pool2d_backward", "embedding_dense_backward",
}  # fmt: skip
"""Operations whose results on floats differ from run to run: those of torch.use_deterministic_algorithms that occur."""
MOST_BY_KTHVALUE = 10**6
"""Largest number of values of one `kthvalue`, which is a single thread block (pytorch issue 75599)."""


class DeviceMixError(RuntimeError):
    """What CUDA would refuse."""


class StreamError(RuntimeError):
    """What a GPU would do at the wrong time."""


class Ledger:
    """What the device was asked to do."""

    def __init__(self) -> None:
        self.phase = "-"
        self.waits: Counter[tuple[str, str, str]] = Counter()
        """Phase, what the host waited for, and the line of ours that made it wait."""
        self.before: Callable[[str, list[Tensor]], None] = lambda operation, tensors: None
        """Called before each operation on the device, with its name and its tensors; may raise."""
        self.tf32 = False
        """Whether products round as with TF32, where torch's flags allow it."""
        self.rounded = 0
        """Products that were rounded so."""
        self.launches: Counter[tuple[str, str]] = Counter()
        """Kernels, by phase and operation."""
        self.bytes: Counter[tuple[str, str]] = Counter()
        """Bytes that they read and write, by phase and operation."""
        self.undetermined: Counter[tuple[str, str, str]] = Counter()
        """Phase, operation on floats whose result differs from run to run, and the line of ours that asked for it."""
        self._live: dict[int, weakref.ref[OnDevice]] = {}

    def clear(self) -> None:
        """Count anew."""
        for counter in (self.waits, self.launches, self.bytes, self.undetermined):
            counter.clear()

    def launch(self, what: str, num_bytes: int, kernels: int = 1) -> None:
        self.launches[self.phase, what] += kernels
        self.bytes[self.phase, what] += num_bytes

    def note_undetermined(self, name: str, args: tuple, tensors: list[Tensor]) -> None:
        if name not in UNDETERMINED or not any(each.is_floating_point() for each in tensors):
            return
        adds_nothing = name.startswith(("index_put", "_index_put")) and not (len(args) > 3 and args[3])
        finds_largest = any(isinstance(each, str) and each in ("amax", "amin") for each in args)
        if not (adds_nothing or finds_largest):
            self.undetermined[self.phase, name, _line_of_ours()] += 1

    def wait(self, what: str) -> None:
        if _Graph.recording is not None:
            raise RuntimeError(f"{what}: operation not permitted when stream is capturing")
        self.waits[self.phase, what, _line_of_ours()] += 1

    def num_waits(self, phase: str) -> int:
        return sum(number for (of, *_), number in self.waits.items() if of == phase)

    def shapes_alive(self) -> list[tuple[int, ...]]:
        """Shapes of the tensors on the device that something still refers to."""
        gc.collect()
        found = [reference() for reference in self._live.values()]
        self._live = {id(each): weakref.ref(each) for each in found if each is not None}
        return sorted(tuple(each.shape) for each in found if each is not None)

    def note(self, tensor: OnDevice) -> None:
        self._live[id(tensor)] = weakref.ref(tensor)


ledger = Ledger()


def _line_of_ours() -> str:
    frame = sys._getframe(1)
    while frame is not None:
        place = frame.f_code.co_filename
        if "/pwfn/" in place:
            return f"{place.rpartition('/pwfn/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


class _Stream:
    """A queue of kernels; it knows how far other queues were when it last waited for them."""

    current: _Stream

    def __init__(self, device=None) -> None:
        self.time = 0
        self.waited: Counter[_Stream] = Counter()
        self.freed: list[tuple[_Stream, int]] = []
        """Who used memory of this queue that is free again, and when."""

    def wait_stream(self, other: _Stream) -> None:
        self.waited[other] = other.time

    def launch(self, tensors: list[OnDevice]) -> None:
        """Let a kernel use some tensors."""
        self.time += 1
        if any(self.waited[user] < when for user, when in self.freed):
            raise StreamError("memory is used again that another stream may still use: record_stream is missing")
        self.freed.clear()
        for each in tensors:
            maker, when = each.made_by
            if maker is not self:
                if self.waited[maker] < when:
                    raise StreamError("a tensor of another stream is used too early: wait_stream is missing")
                each.used_by[self] = self.time


_Stream.current = _Stream()


@contextmanager
def _on_stream(stream: _Stream) -> Iterator[None]:
    before, _Stream.current = _Stream.current, stream
    try:
        yield
    finally:
        _Stream.current = before


class _Graph:
    """Operations in the order in which they were asked for, with the memory that they had."""

    recording: _Graph | None = None

    def __init__(self) -> None:
        self.operations: list[tuple[Callable, tuple, dict, list[Tensor]]] = []
        self.generators: list[torch.Generator] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        ledger.launch("graph", 0)
        with _disable_current_modes(), torch.no_grad():
            for function, args, kwargs, made in self.operations:
                for old, new in zip(made, filter(_is_tensor, tree_leaves(function(*args, **kwargs))), strict=True):
                    if old.data_ptr() != new.data_ptr():  # neither a view nor changed in place
                        old.copy_(new)


@contextmanager
def _recording(graph: _Graph, *, stream: _Stream, capture_error_mode: str) -> Iterator[None]:
    """Inside, nothing happens on the device, but the graph learns what was asked for."""
    storages = [reference().held.untyped_storage() for reference in ledger._live.values() if reference() is not None]
    before = {storage.data_ptr(): (storage, storage.clone()) for storage in storages}
    states = torch.get_rng_state(), [generator.get_state() for generator in graph.generators]
    _Graph.recording = graph
    try:
        yield
    finally:
        _Graph.recording = None
        for *_, made in graph.operations:
            for each in made:
                if each.is_floating_point() and each.untyped_storage().data_ptr() not in before:
                    each.detach().fill_(math.nan)
        for storage, copied in before.values():
            storage.copy_(copied)
        torch.set_rng_state(states[0])
        for generator, state in zip(graph.generators, states[1], strict=True):
            generator.set_state(state)


def _run(function, args, kwargs):
    """Run an operation on what tensors hold; a graph that is recorded learns of it."""
    result = function(*args, **kwargs)
    if _Graph.recording is not None:
        made = list(filter(_is_tensor, tree_leaves(result)))
        _Graph.recording.operations.append((function, args, kwargs, made))
    return result


class OnDevice(Tensor):
    """A tensor that says cuda:0; `held` is the CPU tensor with its numbers."""

    held: Tensor
    made_by: tuple[_Stream, int]
    """The stream on which it was made, and when."""
    used_by: dict[_Stream, int]
    """Others that have used it, and when they did last."""
    recorded: set[_Stream]
    """Others that the allocator knows to use it."""

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        new = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=CUDA, requires_grad=False,
        )  # fmt: skip
        new.held = held
        new.made_by, new.used_by, new.recorded = (_Stream.current, _Stream.current.time), {}, set()
        ledger.note(new)
        return new

    __hash__ = Tensor.__hash__

    def __repr__(self, **kwargs) -> str:
        return f"on cuda:0 {self.held!r}"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if func == Tensor.tolist:
            ledger.wait("tolist")
            return args[0].held.tolist()
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        if func == Tensor.data.__set__:
            target, source = args
            if not isinstance(source, OnDevice):
                raise DeviceMixError("a tensor of the CPU is set as the data of one on cuda:0")
            target.held = source.held
        return result

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})

    def record_stream(self, stream: _Stream) -> None:
        self.recorded.add(stream)

    def __del__(self) -> None:
        self.made_by[0].freed += [(user, when) for user, when in self.used_by.items() if user not in self.recorded]

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            with torch.no_grad():
                new = OnDevice(self.held.detach().clone())
            new.requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                new._is_param = True
            memo[id(self)] = new
        return memo[id(self)]


def _dispatch(func, args, kwargs):
    """Run one operation on what the tensors hold, if a GPU would run it."""
    name = func._schema.name.removeprefix("aten::")
    if name == "_pin_memory":
        return args[0].clone()
    if func.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    ):
        with _Everything():  # inference mode does not take these apart by itself
            return func.decompose(*args, **kwargs)
    leaves = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    on_device = [each for each in leaves if isinstance(each, OnDevice)]
    target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    if name == "_to_copy":
        return _copied_to(func, args, kwargs, target)
    if name == "copy_":
        return _copied_into(func, args, kwargs)
    is_for_device = bool(on_device) if target is None else target.type == "cuda"
    _check_generator(kwargs.get("generator"), is_for_device or bool(on_device), name)
    if not is_for_device and not on_device:
        return func(*args, **kwargs)
    ledger.before(name, leaves)
    _Stream.current.launch(on_device)
    _check_devices(func, name, args, leaves, on_device)
    if name in WAITING:
        ledger.wait(name)
    if name in INDEXING and any(
        isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in tree_leaves(args[1])
    ):
        ledger.wait(f"{name} by a mask")
    inner_args, inner_kwargs = tree_map(_held, (args, dict(kwargs)))
    if target is not None:
        inner_kwargs["device"] = torch.device("cpu")
    inner_kwargs.pop("pin_memory", None)
    if name in TF32_PRODUCTS and _rounds(name):
        ledger.rounded += 1
        inner_args = tree_map(_to_tf32, inner_args)
    ledger.note_undetermined(name, args, leaves)
    if name == "kthvalue" and args[0].shape[args[1] if len(args) > 2 else -1] > MOST_BY_KTHVALUE:
        raise RuntimeError(f"kthvalue of {args[0].shape[-1]} values: one thread block would sort them")
    is_convolution = name in ("convolution", "convolution_backward")
    result = _run(functools.partial(_convolved, func) if is_convolution else func, inner_args, inner_kwargs)
    if name not in NO_KERNEL:
        _count(func, name, args, kwargs, on_device, result)
    known = {id(each.held): each for each in on_device}  # what is changed in place stays the same tensor

    def wrapped(each):
        if not isinstance(each, Tensor) or isinstance(each, OnDevice):
            return each
        return known[id(each)] if id(each) in known else OnDevice(each)

    return tree_map(wrapped, result)


def _convolved(func, *args):
    """Bring the tensors of a convolution into one layout, which its results have, as cuDNN does, and count that."""
    is_forward = func._schema.name == "aten::convolution"
    result, tensors = func(*args), list(filter(_is_tensor, args[: 2 if is_forward else 3]))
    if not any(each.ndim == 4 and _lies_channels_last(each) and not each.is_contiguous() for each in tensors):
        return result
    for each in tensors:
        if not _lies_channels_last(each):
            ledger.launch("to channels last", 2 * _bytes(each))
    if is_forward:
        return result.contiguous(memory_format=torch.channels_last)
    *gradients, of_bias = result
    return *(
        each if each is None else each.contiguous(memory_format=torch.channels_last) for each in gradients
    ), of_bias


def _lies_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last)


def _count(func, name, args, kwargs, on_device, result) -> None:
    """Note a kernel: it reads its tensors, and writes its results and what it changes."""
    given = {id(each.held): each.held for each in on_device}
    new = [each for each in tree_leaves(result) if isinstance(each, Tensor) and id(each) not in given]
    schema = func._schema.arguments
    places = dict(zip([each.name for each in schema], args, strict=False)) | kwargs
    # A fused optimiser changes its gradients only where it scales them back, whatever its schema says.
    only_read = {"grads"} if places.get("grad_scale") is None else set()
    changed = [
        each.held
        for argument in schema
        if argument.alias_info is not None and argument.alias_info.is_write and argument.name not in only_read
        for each in tree_leaves(places.get(argument.name))
        if isinstance(each, OnDevice)
    ]
    outs = [each.held for each in tree_leaves(kwargs.get("out")) if isinstance(each, OnDevice)]
    unread = {id(each) for each in (changed if name in {*NOT_READ, "_foreach_copy_"} else outs)}
    read = [each for each in given.values() if id(each) not in unread]
    ledger.launch(name, sum(map(_bytes, [*read, *new, *changed])))


def _bytes(tensor: Tensor) -> int:
    """Bytes of a tensor; what is only repeated (stride 0) is there once."""
    number = math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride != 0)
    return number * tensor.element_size()


class _Touched(TorchDispatchMode):
    """Inside, notes which of some tensors are read before they are written, and which are written."""

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()
        self.given = given
        self.read: set[int] = set()
        self.written: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if name in WAITING:
            raise RuntimeError(f"{name} inside a function that is compiled as a whole")
        ledger.note_undetermined(name, args, list(filter(_is_tensor, tree_leaves(args))))
        places = dict(zip([each.name for each in func._schema.arguments], args, strict=False)) | (kwargs or {})
        for argument in func._schema.arguments:
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            for each in filter(_is_tensor, tree_leaves(places.get(argument.name))):
                if name in NO_KERNEL:
                    continue
                for index, one in enumerate(self.given):
                    if _share(one, each):
                        only_written = is_written and (
                            argument.name == "out" or name in NOT_READ or (name == "copy_" and argument.name == "self")
                        )
                        if not only_written and index not in self.written:
                            self.read.add(index)
                        if is_written:
                            self.written.add(index)
        return func(*args, **(kwargs or {}))


def _is_tensor(each) -> bool:
    return isinstance(each, Tensor)


def _share(one: Tensor, other: Tensor) -> bool:
    """Whether the second tensor is the first, or a part of it."""
    return 0 <= other.data_ptr() - one.data_ptr() < one.numel() * one.element_size()


def _one_kernel(function, **options):
    """Run what torch.compile would make one kernel of: it reads once, writes once, and sums in a second kernel."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        leaves, structure = tree_flatten((args, kwargs))
        tensors = [each for each in leaves if isinstance(each, Tensor)]
        if not all(isinstance(each, OnDevice) for each in tensors):
            raise DeviceMixError(f"{function.__name__}: Expected all tensors to be on the same device")
        held_args, held_kwargs = tree_unflatten([_held(each) for each in leaves], structure)
        given = [_held(each) for each in tensors]
        with _Touched(given) as touched:
            result = _run(function, held_args, held_kwargs)
        new = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        moved = [given[index] for index in (*touched.read, *touched.written)] + new
        ledger.launch(f"fused {function.__name__}", sum(map(_bytes, moved)), 1 + len(new))
        return tree_map(lambda each: OnDevice(each) if isinstance(each, Tensor) else each, result)

    return run


def _held(each):
    return each.held if isinstance(each, OnDevice) else each


def _check_devices(func, name, args, leaves, on_device) -> None:
    on_cpu = [each for each in leaves if not isinstance(each, OnDevice)]
    if not on_device or not on_cpu:
        return
    if name in INDEXING and isinstance(args[0], OnDevice):
        if any(not isinstance(each, OnDevice) for each in tree_leaves(args[1]) if isinstance(each, Tensor)):
            ledger.wait("an index on the CPU")
        if len(args) <= 2 or not isinstance(args[2], Tensor) or isinstance(args[2], OnDevice) or args[2].dim() == 0:
            return
    elif all(each.dim() == 0 for each in on_cpu) and (torch.Tag.pointwise in func.tags or name in WITH_NUMBERS):
        return
    shapes = [(tuple(each.shape), "cuda" if isinstance(each, OnDevice) else "cpu") for each in leaves]
    raise DeviceMixError(f"{name}: Expected all tensors to be on the same device: {shapes}")


def _check_generator(generator, on_device: bool, name: str) -> None:
    if generator is not None and (generator._cdata in _generators_of_device) != on_device:
        raise RuntimeError(f"{name}: Expected a '{'cuda' if on_device else 'cpu'}' device type for generator")
    if generator is None or _Graph.recording is None:
        return
    if generator._cdata not in [each._cdata for each in _Graph.recording.generators]:
        raise RuntimeError("Attempt to increase offset for a CUDA generator not in capture mode.")


def _copied_to(func, args, kwargs, target):
    source = args[0]
    is_there = isinstance(source, OnDevice)
    goes_there = is_there if target is None else target.type == "cuda"
    if is_there and not goes_there:
        ledger.wait("copy to the CPU")
    if goes_there and not is_there and not kwargs.get("non_blocking"):
        ledger.wait("copy to the device")
    _Stream.current.launch([source] if is_there else [])
    if goes_there:
        ledger.before("_to_copy", [source])
    inner = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    if target is not None:
        inner["device"] = torch.device("cpu")
    result = _run(func, (_held(source),), inner)
    if goes_there or is_there:
        ledger.launch("_to_copy", _bytes(_held(source)) + _bytes(result))
    return OnDevice(result if result is not source else result.clone()) if goes_there else result


def _copied_into(func, args, kwargs):
    into, source = args[:2]
    _Stream.current.launch([each for each in (into, source) if isinstance(each, OnDevice)])
    waits_not = bool(args[2]) if len(args) > 2 else bool(kwargs.get("non_blocking"))
    if _Graph.recording is not None and isinstance(into, OnDevice) and not isinstance(source, OnDevice):
        raise RuntimeError("a copy to the device: operation not permitted when stream is capturing")
    _run(func, (_held(into), _held(source)), {})
    if isinstance(source, OnDevice) and not isinstance(into, OnDevice):
        ledger.wait("copy to the CPU")
    if isinstance(into, OnDevice) and not isinstance(source, OnDevice) and not waits_not:
        ledger.wait("copy to the device")
    if isinstance(source, OnDevice) or isinstance(into, OnDevice):
        ledger.launch("copy_", _bytes(_held(source)) + _bytes(_held(into)))
    return into


def _rounds(name: str) -> bool:
    backend = torch.backends.cudnn.conv if "conv" in name else torch.backends.cuda.matmul
    return ledger.tf32 and backend.fp32_precision == "tf32"


def _to_tf32(each):
    """Round the factors to ten bits of significand, as tensor cores do."""
    if not isinstance(each, Tensor) or each.dtype != torch.float32:
        return each
    bits = each.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).view_as(each)


class _Everything(TorchDispatchMode):
    """Also sees operations that make tensors on the device from nothing."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


_generators_of_device: dict[int, torch.Generator] = {}


class _Generator(torch.Generator):
    def __new__(cls, device="cpu"):
        new = super().__new__(cls, device="cpu")
        if torch.device(device).type == "cuda":
            _generators_of_device[new._cdata] = new
        return new

    def __init__(self, device="cpu") -> None:
        pass


@contextmanager
def pretended_cuda() -> Iterator[None]:
    """Inside, there is one GPU."""
    nothing = lambda *args, **kwargs: None  # noqa: E731
    replaced = {
        "_lazy_init": nothing, "is_available": lambda: True, "synchronize": nothing, "current_device": lambda: 0,
        "is_bf16_supported": lambda *args, **kwargs: True, "device_count": lambda: 1, "manual_seed": nothing,
        "manual_seed_all": nothing, "is_current_stream_capturing": lambda: False, "empty_cache": nothing,
        "get_rng_state": lambda device=None: torch.get_rng_state(), "set_rng_state": nothing, "Stream": _Stream,
        "stream": _on_stream, "current_stream": lambda device=None: _Stream.current, "CUDAGraph": _Graph,
        "graph": _recording,
    }  # fmt: skip
    before = {name: getattr(torch.cuda, name) for name in replaced}
    generator, compiler = torch.Generator, torch.compile
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    lifts = torch._C._only_lift_cpu_tensors()
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
    torch.Generator, torch.compile = _Generator, _one_kernel
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _Everything(), torch.autograd.set_multithreading_enabled(False):
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
        torch.Generator, torch.compile = generator, compiler
        for name, value in before.items():
            setattr(torch.cuda, name, value)
