"""Small trials of every method on the digits, for a CPU, a GPU or the pretended device."""

from __future__ import annotations

import tempfile

import torch

from pwfn.config import (
    BaselineConfig,
    DataConfig,
    EvaluationConfig,
    GpfqConfig,
    KmeansConfig,
    ModelConfig,
    MsqConfig,
    PwfnConfig,
    QatConfig,
    TrainingConfig,
    TrialConfig,
    WfnConfig,
)
from pwfn.replicas import Replicas
from pwfn.results.store import ResultsStore
from pwfn.trial import opening
from pwfn.trial.decision import Decision
from pwfn.trial.rows import Trial
from pwfn.trial.run import run_trial

HALVES = (0.5, 1.0)
CASES = {
    "pwfn": {
        "method": PwfnConfig(fractions=HALVES, b=4, max_order=2), "evaluation": {"ensemble_draws": 2},
        "training": {"channels_last": True},
    },
    "pwfn, free, fisher, linear_on_grad": {
        "method": PwfnConfig(
            fractions=HALVES, b=4, regularization="linear_on_grad", sigma_init="fisher", fisher_images=8,
            codebook="free", recluster="free",
        ),
        "training": {"settle_epochs": 1, "channels_last": True},
    },
    "pwfn, kmeans, distilled, adam, cosine": {
        "method": PwfnConfig(fractions=HALVES, codebook="kmeans", sigma_join="mean_sigma"),
        "training": {"settle_epochs": 1, "distillation": 0.5, "optimizer": "adam", "lr_schedule": "cosine"},
    },
    "pwfn, live, alternate": {
        "method": PwfnConfig(fractions=HALVES, fixed_weights="live", codebook="free", alternate=True, b=5),
        "training": {"settle_epochs": 1},
    },
    "pwfn, equalised": {"method": PwfnConfig(fractions=HALVES, b=4), "model": {"equalize": "filter"}},
    "pwfn, exponential, nearest, resized": {
        "method": PwfnConfig(
            fractions=HALVES, regularization="exponential", growth="nearest", b=12,
            sigma_join="keep_the_same_divide_by_2",
        ),
        "data": {"image_size": 16},
    },
    "wfn": {
        "method": WfnConfig(fractions=(0.4, 1.0), delta=0.1, include_norm=True), "training": {"settle_epochs": 1}
    },
    "qat": {
        "method": QatConfig(stages=(8, 4), stage_rounds=(1,), weighting="plain", rate_strength=0.01),
        "training": {"settle_epochs": 1},
    },
    "qat, powers of two, fisher": {
        "method": QatConfig(
            num_values=6, values="powers_of_two", fisher_images=8, gradual_start=0.5, stage_rounds=(1,)
        ),
        "training": {"channels_last": True},
    },
    "gpfq, stochastic, l0, by activation": {
        "method": GpfqConfig(
            calibration_images=64, rounding="stochastic", sparsify="l0", threshold=0.01, order="activation",
            shared_alphabet=True,
        ),
        "model": {"name": "digits_mlp"},
    },
    "gpfq, sample by sample": {
        "method": GpfqConfig(calibration_images=64, max_gram_features=64), "model": {"name": "digits_mlp"}
    },
    "msq": {"method": MsqConfig(radius="median", scale=2.0)},
    "kmeans, fisher": {"method": KmeansConfig(weighting="fisher", fisher_images=8, max_order=2)},
    "kmeans by tensor": {"method": KmeansConfig(scope="tensor")},
}  # fmt: skip

GRAPHED = {
    "pwfn": {
        "method": PwfnConfig(fractions=HALVES, b=4, max_order=2),
        "training": {"lr_schedule": "cosine", "distillation": 0.5, "precision": "bfloat16"},
    },
    "wfn": {"method": WfnConfig(fractions=HALVES, delta=0.1), "training": {"settle_epochs": 1, "lr": 0.02}},
}  # fmt: skip
"""Trials whose steps may be launched as one graph."""
GRAPHED_STEPS = 7
"""Steps in each of their epochs."""

COMPARED = (
    "state", "failure_message", "val_top1", "test_top1", "unique_values", "entropy_bits", "sparsity", "float_val_top1",
    "ensemble_test_top1", "micro_batches",
)  # fmt: skip


def config(
    *, method, model=None, data=None, training=None, evaluation=None, train_images: int = 128, images: int = 64
) -> TrialConfig:
    """A trial of seconds: 128 images, batches of 32."""
    return TrialConfig(
        model=ModelConfig(**{"name": "digits_cnn", **(model or {})}),
        data=DataConfig(
            name="digits", train_images=train_images, validation_images=images, test_images=images,
            augmentation="crop_flip", **(data or {}),
        ),
        training=TrainingConfig(
            **{"batch_size": 32, "rest_epochs": 1, "start_fraction": 1.0, "lr": 0.01, **(training or {})}
        ),
        evaluation=EvaluationConfig(**{"batch_size": 32, "recalibration_images": train_images, **(evaluation or {})}),
        baseline=BaselineConfig(epochs=1, batch_size=32, lr=0.05, allow_chance=True),
        method=method,
    )  # fmt: skip


def graphed_config(case: str, wished: bool) -> TrialConfig:
    """One of these trials, with a graph or without."""
    of = GRAPHED[case]
    training = {**of["training"], "cuda_graph": wished}
    return config(method=of["method"], training=training, train_images=32 * GRAPHED_STEPS)


def run(of: TrialConfig, device: str, folder: str | None = None) -> dict:
    """Run a trial as a worker would; return its row, or raise what would end the worker's process."""
    opening._data.cache_clear()
    with tempfile.TemporaryDirectory() as own:
        store = ResultsStore(folder or own, "s")
        store.create()
        trial = Trial("0000", 0, "s", of)
        return run_trial(
            trial,
            store,
            device=torch.device(device),
            replicas=Replicas(),
            on_round=lambda row, words: Decision.CONTINUE,
        )
