"""The configuration of one trial: frozen, validated, and the only place that lists defaults.

The defaults of `PwfnConfig` and `TrainingConfig` are the ImageNet setting of PWFN (NeurIPS 2023, section 4), so that
an empty search space is the paper's run. A field's docstring gives its meaning, unit and range; the search space
(`pwfn.space.space`) names fields by dotted path, `method.b` or `training.lr`.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Argument = bool | int | float | str | list[bool | int | float | str] | None
"""Type of an argument that the constructor of a network takes."""

RESERVED_ARGUMENTS = {
    "num_classes": "the data says how many",
    "in_chans": "the data says how many channels",
    "pretrained": "use model.pretrained",
    "checkpoint_path": "use model.checkpoint",
    "pretrained_cfg": "use model.pretrained or model.checkpoint",
    "pretrained_cfg_overlay": "use model.pretrained or model.checkpoint",
    "pretrained_model_args": "timm sets it",
    "cache_dir": "set the environment variable HF_HOME",
    "features_only": "only image classifiers can be used",
    "out_indices": "only image classifiers can be used",
    "scriptable": "it does not change the network",
    "exportable": "it does not change the network",
    "no_jit": "it does not change the network",
    "device": "resources say where a trial runs",
    "dtype": "networks are float32",
}
"""Arguments of timm's `create_model` that `model.kwargs` does not take, and what to do instead."""

PWFN_FRACTIONS = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 1.0)
"""Cumulative share of the weights that is fixed after each round (PWFN, section 4)."""


def shared_data_folder() -> Path | None:
    """The folder of real data sets: the environment variable PWFN_DATA, else `../shared/data`, else None.

    `../shared/data` counts from the repository's root and only where it exists.
    """
    if "PWFN_DATA" in os.environ:
        return Path(os.environ["PWFN_DATA"])
    beside = Path(__file__).parents[2] / "shared" / "data"
    return beside if beside.is_dir() else None


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class ModelConfig(_Frozen):
    """Which network is compressed, and where its weights come from."""

    name: str = "resnet18"
    """Name in timm's registry, ours (`digits_cnn`, `cifar_resnet20`, ...) included; or `hf-hub:OWNER/NAME`, or
    `local-dir:FOLDER` with a config.json as timm saves it."""
    kwargs: dict[str, Argument] = {}
    """Further arguments of timm's `create_model` (patch_size, drop_path_rate, global_pool, ...), as in timm's
    `--model-kwargs`. They belong to the network: the exported file carries them."""
    pretrained: bool = False
    """Load the weights that belong to the name (downloaded by timm where they are not cached)."""
    checkpoint: str | None = None
    """A state dict of one's own, `.safetensors` or saved by torch, alone or as a training script keeps it; or the index
    of its shards. Takes the place of `pretrained`. `${NAME}` is an environment variable."""
    ema: bool = False
    """Where a checkpoint holds both the raw weights and their moving average (EMA), load the average."""
    new_head: bool = False
    """Where the weights tell another number of classes apart, give the network a new classifier, drawn at random: it
    has to be trained (`baseline.epochs`)."""
    random: bool = False
    """Allow a network with random weights, one that was neither loaded nor trained."""
    fuse: bool = False
    """First fuse what timm can fuse for use (RepVGG, MobileOne, FastViT, ...) and make weight-standardised convolutions
    plain: what is compressed is then what the multiplications use."""
    equalize: Literal["none", "layer", "filter"] = "none"
    """Before any method: rescale each layer that feeds a BatchNorm, or each of its filters, so that all are equally
    large; the network computes what it did. A codebook that all layers share then needs fewer values."""

    @field_validator("kwargs")
    @classmethod
    def _are_of_the_architecture(cls, kwargs: dict[str, Argument]) -> dict[str, Argument]:
        reserved = {name: instead for name, instead in RESERVED_ARGUMENTS.items() if name in kwargs}
        for name, instead in reserved.items():
            raise ValueError(f"{name} is no argument of the architecture; {instead}")
        return kwargs

    @model_validator(mode="after")
    def _one_source(self) -> ModelConfig:
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("pretrained and checkpoint are two sources of weights; give one")
        if self.ema and self.checkpoint is None:
            raise ValueError("ema chooses among the weights of a checkpoint; give model.checkpoint")
        return self

    @property
    def has_weights(self) -> bool:
        """Whether weights are loaded from somewhere."""
        return self.pretrained or self.checkpoint is not None

    @property
    def without_weights(self) -> ModelConfig:
        """The same network, whose weights come from elsewhere."""
        return self.model_copy(update={"pretrained": False, "checkpoint": None, "ema": False, "new_head": False})


class DataConfig(_Frozen):
    """Which images, and how they are split and prepared; docs/data.md says what is accepted."""

    name: Literal["digits", "parquet", "imagefolder", "torchvision", "webdataset", "huggingface"] = "imagefolder"
    """digits: scikit-learn's, embedded. imagefolder: `train/CLASS/*` and `val/CLASS/*` under `root`. parquet,
    webdataset: Parquet or tar files under `root`. torchvision: `dataset` by class name. huggingface: `dataset` by its
    name on the hub, or a folder `root` in any layout that Hugging Face's `datasets` reads."""
    root: str | None = None
    """Folder of the data, or `s3://` and `hf://` for parquet and webdataset. `${NAME}` is an environment variable;
    `${PWFN_DATA}` falls back to `../shared/data`."""
    dataset: str | None = None
    """torchvision: class name in torchvision.datasets, with a variant after a slash where the set has some (CIFAR100,
    EMNIST/letters). huggingface: name on the hub, with a revision after an at sign (uoft-cs/cifar10@main)."""
    subset: str | None = None
    """Which configuration of a Hugging Face data set that has several."""
    cache: str | None = None
    """Folder for the Arrow files that `datasets` makes of Parquet and tar files; None takes its own
    (HF_DATASETS_CACHE, else ~/.cache/huggingface/datasets)."""
    image_column: str | None = None
    """Column of the images; None takes the only one there is."""
    label_column: str | None = None
    """Column of the labels; None takes the only one there is."""
    train_split: str | None = None
    """Name of the training split, or of its folder under `root`; None finds train or training."""
    validation_split: str | None = None
    """Name of the split that the search sees. None takes the official validation split where there is a test split
    beside it, else holds images out of the training split. The training split's name: hold out in any case."""
    test_split: str | None = None
    """Name of the split that is measured at the end. None takes test or testing, else the official validation split."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training images held out for the search, where no split serves for that; it never sees the test
    images."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the training images held out as test images, by a draw that is the same for every seed, where the data
    has no test split. None takes 0.2 for sets that come without one (digits, EuroSAT), and refuses other data."""
    split_seed: int | None = None
    """Seed of the validation split; None takes the seed of the study, so that all its trials share one split."""
    train_images: Count | None = None
    """Use only this many training images, drawn by the split seed, each class its share; None uses all."""
    validation_images: Count | None = None
    """Use only this many validation images, drawn likewise; None uses all."""
    test_images: Count | None = None
    """Use only this many test images, drawn likewise; None uses all."""
    class_order: Literal["natural", "lexical"] | None = None
    """Order of classes that are known by name only (folders, text labels). natural: 2 before 10, as timm's reader.
    lexical: by character, as torchvision's. None is lexical; where the two differ, weights are loaded and nothing
    names their classes, the order has to be chosen."""
    class_map: str | None = None
    """File that gives each class its number: a name per line, as timm's `--class-map`, or JSON (a list of names, or
    name to number). Takes the place of `class_order`, and may name classes of which there is no image."""
    channels: Literal[1, 3] | None = None
    """1: grey, 3: colour; every image is converted. None: colour for image files; for small sets colour unless all
    their images are grey."""
    exif_orientation: bool = False
    """Turn photos as their EXIF record says. timm and torchvision do not, so pretrained networks did not see that."""
    image_size: Count | None = None
    """Side of the network's input in pixels; None takes the network's own."""
    use_test_size: bool = False
    """Take timm's input size and crop for testing, where a network has other ones than for training."""
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest", "box", "hamming"] | None = None
    """Filter of the resizing; None takes the network's."""
    crop_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the resized image that the central crop keeps, timm's crop_pct; None takes the network's."""
    crop_mode: Literal["center", "squash", "border"] | None = None
    """timm's: center keeps the shape and cuts what is outside, squash changes the shape, border pads. None takes the
    network's."""
    augmentation: Literal["none", "flip", "crop_flip"] = "flip"
    """Training images: flip mirrors at random. crop_flip also crops at random: a random resized crop, or for sets that
    are held in memory a shift by up to 1/8 of the side."""
    in_memory: bool | None = None
    """Decode once and hold the prepared images on the device. None does so for small images (sides up to 96) from
    anything but image files."""
    broken_images: Literal["refuse", "skip"] = "refuse"
    """An image that cannot be decoded ends the trial, or is left out (in training, another takes its place)."""
    loader_workers: Annotated[int, Field(ge=0)] = 4
    """Processes that decode images, per training worker, where they are not held in memory. With 0 the trial's own
    process decodes, and nothing but search.trial_minutes ends a wait for a file or a drive that does not answer."""
    loader_timeout: Positive = 300.0
    """Seconds for which a batch of the loader workers is waited for; then the trial fails. It needs loader_workers
    above 0, and sets that are held in memory have no such limit either."""

    @model_validator(mode="after")
    def _has_a_source(self) -> DataConfig:
        needs_root = self.name in ("parquet", "imagefolder", "webdataset") or (
            self.name == "torchvision" and not (self.dataset or "").startswith("FakeData")
        )
        if needs_root and self.root is None:
            raise ValueError(f"root is missing: data.name={self.name} reads a folder")
        if self.name == "huggingface":
            if (self.root is None) == (self.dataset is None):
                raise ValueError("data.name=huggingface reads either root, a folder, or dataset, a name on the hub")
        elif (self.name == "torchvision") != (self.dataset is not None):
            raise ValueError("dataset names a torchvision set: give it with data.name=torchvision, and only then")
        return self

    @model_validator(mode="after")
    def _one_order(self) -> DataConfig:
        if self.class_order is not None and self.class_map is not None:
            raise ValueError("class_order and class_map are two orders of the classes; give one")
        return self

    @model_validator(mode="after")
    def _test_stays_unseen(self) -> DataConfig:
        if self.test_split is not None and self.test_split == self.validation_split != self.train_split:
            raise ValueError(
                f"validation_split and test_split are both {self.test_split!r}: the search would see the test images"
            )
        return self


class OptimizationConfig(_Frozen):
    """One optimiser and its batches."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD with momentum, or Adam (betas 0.9, 0.999)."""
    lr: Positive = 0.001
    """Learning rate."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Within a round: constant, or a half cosine down to zero."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; Adam ignores it."""
    weight_decay: NonNegative = 1e-4
    """L2 penalty, added to the gradient of weights that are not fixed."""
    clip_norm: Positive | None = 1.0
    """Largest norm of the gradient; a larger gradient is scaled down to it. None never scales."""
    batch_size: Count = 128
    """Images per step over all workers together."""


class BaselineConfig(OptimizationConfig):
    """How the float network is trained before compression; it is trained once, and every trial starts from it."""

    epochs: Annotated[int, Field(ge=0)] = 0
    """Number of epochs; 0 takes the network as it was loaded."""
    allow_chance: bool = False
    """Go on although a network that was loaded is hardly better than chance, which otherwise ends the study: mostly its
    classes are in another order."""


class TrainingConfig(OptimizationConfig):
    """Training between two fixings."""

    start_epochs: Annotated[int, Field(ge=0)] = 1
    """Epochs before the first fixing."""
    start_fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the batches that an epoch of the first round uses; PWFN trains on 5 % there."""
    rest_epochs: Annotated[int, Field(ge=0)] = 3
    """Epochs before each later fixing."""
    steps_per_epoch: Count | None = None
    """Stop an epoch after this many steps, for short trials; None uses all images."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is autocast: weights, gradients and the optimiser's state stay float32."""
    distillation: Fraction = 0.0
    """Weight of the distance from the float network's predictions in the loss; the labels have the rest. A network that
    already fits its training images learns little from their labels."""
    temperature: Positive = 1.0
    """Temperature of both predictions in that distance; at a higher one, unlikely classes count for more."""
    settle_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs of training after the last fixing, for all that is not fixed: norm layers, and the values of a codebook
    that is free, each of which moves together with all weights at it."""


class EvaluationConfig(_Frozen):
    """How accuracy is measured."""

    batch_size: Count = 512
    """Images per forward pass."""
    recalibrate_bn: bool = True
    """Estimate BatchNorm's statistics again, without noise, before a network with fixed weights is measured."""
    recalibration_images: Count = 4096
    """Number of training images for that estimate, augmented as in training."""
    ensemble_draws: Annotated[int, Field(ge=0)] = 0
    """Number of posterior draws over whose mean prediction the test accuracy is measured too; the exported file then
    keeps the sigmas. 0 does neither."""


class ResourcesConfig(_Frozen):
    """What one trial occupies on the cluster."""

    workers: Count = 1
    """Number of data-parallel processes. A single one is the trial's own process; several are workers of Ray Train."""
    cpus_per_worker: Positive = 1
    """Number of CPUs of each worker, and of the threads that torch uses there."""
    gpus_per_worker: NonNegative = 0
    """Number of GPUs of each worker; with a fraction several small trials share one."""
    custom: dict[str, Positive] = {}
    """Ray's custom resources per worker, to choose nodes of a mixed cluster, e.g. {a100: 1}."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> ResourcesConfig:
        if self.gpus_per_worker > 1 and self.gpus_per_worker != int(self.gpus_per_worker):
            raise ValueError(f"gpus_per_worker above 1 must be whole, but got {self.gpus_per_worker}")
        return self


class PwfnConfig(_Frozen):
    """PWFN: learned weight noise decides how far each weight may move to a shared sum of powers of two."""

    name: Literal["pwfn"] = "pwfn"
    fractions: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = PWFN_FRACTIONS
    """Cumulative share of the weights fixed after each round: increasing, the last one 1."""
    regularization: Literal["linear", "exponential", "linear_on_grad"] = "linear"
    """Form of the regulariser that keeps sigma from collapsing to zero."""
    regularization_strength: NonNegative = 2.0**-11
    """Factor of the regulariser, the paper's lambda."""
    sigma_target: Positive = 0.05
    """Sigma up to which the regulariser pulls, the paper's S; also the largest initial sigma."""
    b: Annotated[int, Field(ge=1, le=20)] = 7
    """The smallest non-zero value of the codebook is 2^-b."""
    start_sigma: Positive = 1.0
    """Radius of the first round: how many sigmas a weight may move."""
    end_sigma: Positive = 1.0
    """Radius of the last round; rounds between are spaced evenly."""
    radius_growth: Annotated[float, Field(gt=1)] = 2.0
    """Factor by which a round widens its radius when no free weight is within reach of any value."""
    max_order: Annotated[int, Field(ge=1, le=8)] = 4
    """Largest number of powers of two that sum to one value."""
    growth: Literal["alternate", "radius_first", "nearest"] = "alternate"
    """What follows when nothing is left within reach. alternate: one more power of two and a wider radius in turn (the
    paper). radius_first: up to 8 times the first radius before a second power of two, as sums of several make most of
    the values. nearest: no wider radius; weights beyond it go to the nearest value there is, since the last ones of a
    round, often its largest, otherwise make values of their own."""
    codebook: Literal["lattice", "free", "kmeans"] = "lattice"
    """lattice: sums of powers of two, cheap to multiply by. free: after each fixing every value but zero moves to the
    mean of its weights, for users who want few values rather than cheap ones. With `recluster: free` it moves once,
    when its first weights are fixed. kmeans: `num_values` values from which all weights together are least far, in
    sigmas squared, found anew in each round; those nearest to theirs are fixed first. The lattice's fields (b,
    max_order, radius, growth, zero_rule, recluster) then have no meaning."""
    num_values: Annotated[int, Field(ge=1, le=4096)] = 16
    """Largest number of distinct values; used with `codebook: kmeans` only."""
    zero_rule: bool = True
    """Weights below 2^-b count as being at distance zero from the value zero."""
    sigma_join: Literal["std_mu", "mean_sigma", "keep_the_same_divide_by_2", "keep_the_same_divide_by_10",
                        "allow_retraining"] = "std_mu"  # fmt: skip
    """How the new sigma of weights is computed that were just fixed to one value together."""
    recluster: Literal["all", "free"] = "all"
    """all: every round assigns all weights anew, so a weight fixed earlier may get another value. free: weights fixed
    earlier keep their value."""
    fixed_weights: Literal["hold", "live"] = "hold"
    """hold: a fixed weight keeps its value until a later fixing gives it another one (the paper). live: it keeps its
    latent weight as well. That trains on, by the gradient of what the weight shows, within the round's radius (from
    `start_sigma` to `end_sigma`, with every codebook), in the weight's own sigmas, of where it was when fixed. In each
    step the weight shows that value of the last fixing which is nearest to it, after the very last one, too, for
    `training.settle_epochs`. Needs `recluster: all`."""
    noise: bool = True
    """Draw weights from the posterior in training; without it this is plain training between fixings."""
    prior: bool = True
    """Whether the initial sigma follows `sigma_init`; if not, it is 1e-4 everywhere."""
    sigma_init: Literal["paper", "fisher"] = "paper"
    """paper: the farther a weight is from its two powers of two, the larger. fisher: the less the predictions depend on
    a weight, the larger (Laplace posterior, from `fisher_images`): distance to a power of two says where a weight would
    like to go, not whether it may."""
    fisher_images: Count = 500
    """Number of training images, without augmentation, from which the Fisher information is estimated."""
    sigma_scale: Positive = 0.0025
    """Initial sigma at the 75 % quantile of a tensor."""
    alternate: bool = False
    """Train mu in the first half of each epoch's steps and sigma in the second, rather than both together."""

    @field_validator("sigma_join", mode="before")
    @classmethod
    def _has_a_meaning(cls, sigma_join: object) -> object:
        if sigma_join == "mean_mu":
            raise ValueError("mean_mu, the research code's default, has no definition and gives NaN; use std_mu")
        return sigma_join

    @model_validator(mode="after")
    def _fractions_increase_to_one(self) -> PwfnConfig:
        check_fractions(self.fractions)
        return self

    @model_validator(mode="after")
    def _living_weights_may_move(self) -> PwfnConfig:
        if self.fixed_weights == "live" and self.recluster == "free":
            raise ValueError(
                "fixed_weights=live lets fixed weights change their value, and recluster=free says that they keep it; "
                "use recluster=all, or fixed_weights=hold"
            )
        return self


def check_fractions(fractions: tuple[float, ...]) -> None:
    """Raise ValueError unless the cumulative fractions strictly increase and end at 1."""
    if fractions[-1] != 1 or any(later <= earlier for earlier, later in pairwise(fractions)):
        raise ValueError(f"fractions must increase and end at 1.0, but got {list(fractions)}")


WFN_FRACTIONS = (0.3, 0.6, 0.8, 0.9, 0.95, 0.975, 0.99, 0.9975, 0.999, 1.0)
"""Cumulative share of the weights that is fixed after each round (WFN, section 3)."""


class WfnConfig(_Frozen):
    """WFN: weights move by a bounded relative distance to a geometric grid, written as few powers of two."""

    name: Literal["wfn"] = "wfn"
    fractions: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = WFN_FRACTIONS
    """Cumulative share of the weights fixed after each round: increasing, the last one 1."""
    delta: Annotated[float, Field(ge=0.001, lt=1)] = 0.01
    """Relative distance that weights may move on average in the last round; ten times as far in the first of ten. It
    also spaces the grid, which has about ln(largest weight / zero_distance) / delta values."""
    zero_distance: Annotated[float, Field(ge=2.0**-20, lt=1)] = 2.0**-7
    """Weights smaller than this may become zero; also the grid's smallest positive value."""
    include_norm: bool = False
    """Also fix the scale and shift of norm layers."""
    regularization_ratio: NonNegative = 0.4
    """Size of the pull towards the codebook, as a share of the cross-entropy."""
    temperature: Annotated[float, Field(ge=0.001, le=10)] = 0.05
    """Temperature of the softmin that weighs the centres in the penalty, in units of relative distance."""

    @model_validator(mode="after")
    def _fractions_increase_to_one(self) -> WfnConfig:
        check_fractions(self.fractions)
        return self


class AlphabetConfig(_Frozen):
    """An alphabet of 2^bits + 1 evenly spaced levels around zero (GPFQ follow-up, section 3).

    Biases share their layer's where it reaches them, else they have one of as many levels up to the largest bias.
    """

    bits: Annotated[int, Field(ge=1, le=12)] = 4
    """2^bits + 1 levels; 1 is the ternary alphabet."""
    scale: Positive = 1.0
    """Factor on the radius, the papers' C."""
    radius: Literal["percentile", "median"] = "percentile"
    """percentile: mean over neurons of the `percentile` quantile of |weight|. median: that of a layer's |weight|."""
    percentile: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The quantile that `radius: percentile` takes, in (0, 1]; 1 takes the largest |weight| of each neuron."""
    shared_alphabet: bool = False
    """One radius for the whole network, so that all layers share their values; else one per layer."""


class GpfqConfig(AlphabetConfig):
    """GPFQ: greedy path-following quantisation after training, layer by layer on a small calibration set."""

    name: Literal["gpfq"] = "gpfq"
    calibration_images: Count = 1024
    """Number of training images, without augmentation, whose activations path following uses."""
    rounding: Literal["nearest", "stochastic"] = "nearest"
    """How a number becomes a level: the nearest one, or one of its two neighbours at random, without bias."""
    sparsify: Literal["none", "l1", "l0"] = "none"
    """l1 shrinks the argument by `threshold`; l0 sends it to zero up to `threshold` and gives the other levels
    that offset. Weights only."""
    threshold: NonNegative = 0.0
    """Threshold of `sparsify`, in units of the weights; `sparsify: none` ignores it."""
    order: Literal["natural", "activation"] = "natural"
    """The order in which features are quantised: as they are stored, or those with the largest inputs first."""
    max_gram_features: Count = 8192
    """Layers with more features are done sample by sample, on as many samples, instead of by their Gram matrices."""


class MsqConfig(AlphabetConfig):
    """MSQ: nearest rounding to GPFQ's alphabet, its memoryless baseline."""

    name: Literal["msq"] = "msq"


class KmeansConfig(_Frozen):
    """K-means of the trained weights: exact, in one dimension, without any training."""

    name: Literal["kmeans"] = "kmeans"
    num_values: Annotated[int, Field(ge=1, le=4096)] = 16
    """Most distinct values, per tensor where `scope` is tensor. Zero is not kept among them."""
    scope: Literal["network", "tensor"] = "network"
    """One codebook for the whole network, or one for each tensor."""
    weighting: Literal["plain", "fisher"] = "plain"
    """plain: the least squared error. fisher: weighted by how much the predictions change with each weight."""
    fisher_images: Count = 500
    """Number of training images, without augmentation, from which the Fisher information is estimated."""
    max_order: Annotated[int, Field(ge=1, le=8)] | None = None
    """Move each centre to the nearest sum of at most this many powers of two, then each weight to the nearest of
    those; centres that meet are one value. None leaves them."""


QAT_STAGES = (16, 8, 4, 3, 2)
"""One training, five networks: each stage goes on from the weights of the one before it, with fewer values."""


class QatConfig(_Frozen):
    """Straight-through training of one codebook for the whole network: no weight is fixed before a stage ends.

    Every weight keeps a latent value; the network sees the codebook's value for it. The gradient of what is seen goes
    to the latent weight unchanged, the mean over a value's weights to the value.
    """

    name: Literal["qat"] = "qat"
    num_values: Annotated[int, Field(ge=1, le=256)] | None = None
    """Values of the codebook, in one stage: short for `stages` of one number. Give one of the two."""
    stages: tuple[Annotated[int, Field(ge=1, le=256)], ...] = ()
    """Values of the codebook in each stage, falling. Each stage ends in a whole network, which is measured; the next
    one starts from k-means of the latent weights. Neither this nor `num_values`: 16, 8, 4, 3, 2."""
    stage_rounds: Annotated[tuple[Count, ...], Field(min_length=1)] = (3,)
    """Rounds of each stage, or one number for all. A round trains `training.rest_epochs` epochs (the first one
    `start_epochs`, with the share `start_fraction` of the steps), and is measured and kept; it changes nothing in the
    training, so that few long rounds and many short ones end alike but for the images' order."""
    later_lr_ratio: Positive = 0.7
    """Learning rate of every stage after the first, as a share of `training.lr`. Each stage has its own schedule."""
    values: Literal["free", "powers_of_two"] = "free"
    """free: any number. powers_of_two: sums of at most `max_order` powers of two, the smallest 2^-b: multiplication is
    that many shifts."""
    max_order: Annotated[int, Field(ge=1, le=4)] = 2
    """Most powers of two that one value may sum, with `values: powers_of_two`."""
    b: Annotated[int, Field(ge=1, le=20)] = 7
    """The smallest power of two is 2^-b, with `values: powers_of_two`."""
    zero: bool = False
    """Whether one value of the codebook is exactly zero and stays zero during training."""
    rate_strength: NonNegative = 0.0
    """lambda: a weight takes the value with the least importance * (w - c)^2 / mean(w^2) + lambda * bits(c), bits(c)
    being -log2 of the share of the weights that have c. 0: the nearest value. The larger, the fewer bits per weight."""
    weighting: Literal["plain", "fisher"] = "fisher"
    """Importance of a weight where values are chosen for the latent weights: at the start of each stage, and with
    `rate_strength` in each step. plain: all alike. fisher: how much the predictions change with the weight."""
    fisher_images: Count = 500
    """Number of training images, without augmentation, from which each stage estimates the Fisher information."""
    values_lr_ratio: NonNegative = 0.3
    """Learning rate of the values, as a share of the weights'; 0: they stay where k-means put them."""
    gradual_start: Fraction = 0.0
    """Share of the first stage's steps in which the network goes over from the latent weights to their values, evenly;
    0: it sees the values from the first step on."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of the codebook in each stage."""
        if self.num_values is not None:
            return (self.num_values,)
        return self.stages or QAT_STAGES

    @property
    def rounds_of_stages(self) -> tuple[int, ...]:
        """Rounds of each stage."""
        return self.stage_rounds * len(self.sizes) if len(self.stage_rounds) == 1 else self.stage_rounds

    @model_validator(mode="after")
    def _stages_fall(self) -> QatConfig:
        if self.num_values is not None and self.stages:
            raise ValueError(
                f"num_values={self.num_values} and stages={list(self.stages)} both say how many values there are; "
                "give one of them (num_values null, or stages [])"
            )
        if any(later >= earlier for earlier, later in pairwise(self.stages)):
            raise ValueError(f"stages must fall, each with fewer values than the last, but got {list(self.stages)}")
        if len(self.stage_rounds) not in (1, len(self.sizes)):
            raise ValueError(
                f"stage_rounds must be one number, or one for each of the {len(self.sizes)} stages, "
                f"but got {list(self.stage_rounds)}"
            )
        if self.zero and self.sizes[-1] == 1:
            raise ValueError("zero is true and the last stage has one value: all weights would be zero")
        return self


MethodConfig = PwfnConfig | WfnConfig | GpfqConfig | KmeansConfig | MsqConfig | QatConfig


class TrialConfig(_Frozen):
    """Everything that one trial depends on."""

    model: ModelConfig = ModelConfig()
    data: DataConfig
    baseline: BaselineConfig = BaselineConfig()
    training: TrainingConfig = TrainingConfig()
    method: Annotated[MethodConfig, Field(discriminator="name")] = PwfnConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    resources: ResourcesConfig = ResourcesConfig()
    seed: int = 0
    """Seeds everything random in this trial but the split; a sweep derives it from the study's seed."""

    @property
    def split_seed(self) -> int:
        """Seed of the split, and of weights that are not loaded: the study's, or a lone trial's own."""
        return self.seed if self.data.split_seed is None else self.data.split_seed

    @property
    def include_norm(self) -> bool:
        """Whether norm layers belong to the fixed set."""
        return isinstance(self.method, WfnConfig) and self.method.include_norm

    @model_validator(mode="after")
    def _batches_divide(self) -> TrialConfig:
        for part in ("baseline", "training"):
            size = getattr(self, part).batch_size
            if size % self.resources.workers != 0:
                raise ValueError(
                    f"{part}.batch_size={size} is for all workers together and must be a multiple of "
                    f"resources.workers={self.resources.workers}"
                )
        return self
