"""A device that runs out of memory, breaks, or rounds; `test_pretended_cuda.py` runs this in a process of its own."""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import small_trials  # noqa: F401  (before torch)
import torch
from PIL import Image
from pretended_cuda import OnDevice, StreamError, ledger, pretended_cuda
from small_trials import config, phases, run

from pwfn import equalization, fused
from pwfn.config import DataConfig, GpfqConfig, KmeansConfig, ModelConfig, PwfnConfig
from pwfn.data import Preprocessing, open_source
from pwfn.errors import MachineError, UserError
from pwfn.exact import allow_tf32
from pwfn.models import build_network
from pwfn.results.store import ResultsStore
from pwfn.trial import opening

ONE_ROUND = PwfnConfig(fractions=(1.0,), b=4, max_order=2)
OUT_OF_MEMORY = {
    "train": "CUDA out of memory. Tried to allocate 20.00 MiB",
    "evaluate": "CUDA error: out of memory",
    "recalibrate": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "float network train": "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "fisher": "Unable to find a valid cuDNN algorithm to run convolution",
    "equalise": "GET was unable to find an engine to execute this computation",
    "calibrate": "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
}
"""What a device says in each phase where more images pass at once than it can hold."""
TRIALS = {
    "fisher": {"method": KmeansConfig(weighting="fisher", fisher_images=32)},
    "equalise": {"method": ONE_ROUND, "model": {"equalize": "layer"}},
    "calibrate": {"method": GpfqConfig(calibration_images=32), "model": {"name": "digits_mlp"}},
}


@contextmanager
def before_each_operation(do):
    ledger.before = do
    try:
        yield
    finally:
        ledger.before = lambda operation, tensors: None


@pytest.mark.parametrize("phase", OUT_OF_MEMORY)
def test_smaller_parts_of_a_batch_reach_every_phase(phase):
    most = 8 if phase == "equalise" else 16
    refused = []

    def holds_few_images(operation, tensors):
        """As a GPU of little memory. One that prepares images for Fisher information sees no batch of them."""
        if ledger.phase != phase or not (operation in ("convolution", "addmm") or phase == "fisher"):
            return
        passing = [tensor.shape[0] for tensor in tensors if tuple(tensor.shape[1:]) in ((1, 8, 8), (64,))]
        if any(most < num_images <= 32 for num_images in passing):
            refused.append(operation)
            raise RuntimeError(OUT_OF_MEMORY[phase])

    with pretended_cuda(), phases(), before_each_operation(holds_few_images):
        row = run(config(**TRIALS.get(phase, {"method": ONE_ROUND}), images=32), "cuda")
        opening._data.cache_clear()
    assert row["state"] == "complete", row["failure_message"]
    assert len(refused) == 1
    assert row["micro_batches"] == (1 if phase.startswith("float") else 2)


def test_a_broken_device_ends_the_process_and_leaves_no_row(tmp_path):
    broken = []

    def breaks_in_training(operation, tensors):
        """From its first failure on, every call on the context fails alike."""
        if ledger.phase == "train" and operation == "convolution_backward":
            broken.append(operation)
        if broken:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ...")

    with pretended_cuda(), phases(), before_each_operation(breaks_in_training):
        with pytest.raises(MachineError, match="device-side assert triggered") as caught:
            run(config(method=ONE_ROUND), "cuda", str(tmp_path))
        assert caught.value.failure_class == "device"
        with pytest.raises(MachineError):  # why the process has to end
            run(config(method=ONE_ROUND), "cuda", str(tmp_path))
    assert ResultsStore(str(tmp_path), "s").read_trial("0000") is None


def test_no_memory_to_build_is_no_matter_of_batches(tmp_path):
    def has_no_memory(operation, tensors):
        if operation == "_to_copy" and ledger.phase == "-":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    with (
        pretended_cuda(), phases(), before_each_operation(has_no_memory),
        pytest.raises(MachineError, match="no memory to build the network") as caught,
    ):  # fmt: skip
        run(config(method=ONE_ROUND), "cuda", str(tmp_path))
    assert caught.value.failure_class == "memory"


def test_equalising_does_not_mistake_tf32_for_a_change(monkeypatch):
    """Compared in float32 a deep network changes by 1e-6 or so; in TF32 by 1e-3, which was the tolerance."""
    monkeypatch.setattr(ledger, "tf32", True)
    monkeypatch.setattr(equalization, "TOLERANCE", 2e-4)
    allow_tf32(True)  # a trial before may have forbidden it in this process

    def equalise():
        network = build_network(ModelConfig(name="cifar_resnet20"), num_classes=10, in_channels=3, seed=1)
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        ledger.rounded = 0
        with pretended_cuda():
            equalization.equalize_(network.to("cuda"), images.to("cuda"), "filter")

    equalise()
    assert ledger.rounded > 0  # only the pass that looks for the layers, which compares nothing
    monkeypatch.setattr(equalization, "exact_float32", nullcontext)
    with pytest.raises(UserError, match="outputs change by"):
        equalise()


def test_a_trial_decides_how_its_process_computes():
    """Whatever the trial before it in this process had."""
    for wished in (True, False):
        training = {"tf32": wished, "cudnn_benchmark": wished, "fused": wished}
        with pretended_cuda(), phases():
            row = run(config(method=ONE_ROUND, training=training, train_images=32, images=32), "cuda")
            opening._data.cache_clear()
        assert row["state"] == "complete", row["failure_message"]
        backends = torch.backends.cudnn.conv, torch.backends.cuda.matmul
        assert {backend.fp32_precision for backend in backends} == {"tf32" if wished else "ieee"}
        assert torch.backends.cudnn.benchmark is wished
        assert fused._Switch.is_on is wished


def test_a_trial_takes_its_share_of_a_gpu_and_no_more():
    shares = []
    with pretended_cuda(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
        for gpus in (0.25, 1.0):
            opening.own_device(config(method=ONE_ROUND).resources.model_copy(update={"gpus_per_worker": gpus}))
    assert shares == [0.25]


def loaded(root, device):
    """All batches of an epoch of 12 images from files."""
    config = DataConfig(name="imagefolder", root=str(root), augmentation="none", loader_workers=0, in_memory=False)
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.2,) * 3, image_size=8)
    data = open_source(config, seed=0).prepare(preprocessing, torch.device(device))
    return list(data.train_batches(batch_size=4, seed=0))


def test_batches_from_files_are_copied_on_a_stream_of_their_own(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 8, 8, 8, 3), dtype=np.uint8)
    for place in np.ndindex(2, 2, 8):
        split, label, number = place
        path = tmp_path / ("train", "val")[split] / ("ant", "bee")[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[place]).save(path)
    expected = loaded(tmp_path, "cpu")
    with pretended_cuda():
        ledger.clear()
        found = loaded(tmp_path, "cuda")
        waits = [what for _, what, line in ledger.waits if line.startswith("data/loader")]
        found = [[each.cpu() for each in batch] for batch in found]
        assert waits == []
        for batches in zip(expected, found, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))
        # Planted defects: the compute stream does not wait, or nobody says that it uses the memory.
        for owner, name in ((type(torch.cuda.current_stream()), "wait_stream"), (OnDevice, "record_stream")):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, lambda *args: None)
                with pytest.raises(StreamError):
                    loaded(tmp_path, "cuda")
