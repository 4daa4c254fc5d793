"""The configuration of one trial: frozen, checked when it is built, and the only place that has the defaults.

The defaults of `PwfnConfig` and `TrainingConfig` are the ImageNet setting of PWFN (NeurIPS 2023, section 4), so that
an empty search space is the paper's run. The docstring of a field gives its meaning, unit and range; users read it. A
search space (`pwfn.space.space`) names a field by its path, for example `method.b` or `training.lr`.
"""

from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Augmentation = Literal["none", "flip", "crop_flip"]
LayerwiseAlgorithm = Literal["path_following", "gptq"]
"""How a layer is quantised on its inputs: by the path of GPFQ, or by GPTQ."""
Assignment = Literal["nearest", LayerwiseAlgorithm]
"""How weights get the values of a codebook."""
Argument = bool | int | float | str | list[bool | int | float | str] | None
"""An argument in `model.kwargs`."""

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
"""Arguments of timm's `create_model` that are not allowed in `model.kwargs`, with the reason or what to do instead."""

ARGUMENTS_OF_FIELDS = ("lr", "weight_decay", "momentum", "layer_decay", "opt")
"""Arguments of timm's `create_optimizer_v2` that are fields of `baseline`; `baseline.opt_kwargs` may not have them."""

PWFN_FRACTIONS = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 1.0)
"""Cumulative share of the weights that is fixed after each round (PWFN, section 4)."""


def shared_data_folder() -> Path | None:
    """The folder of real data sets: the environment variable PWFN_DATA; if it is not set, `../shared/data`.

    `../shared/data` is relative to the root of the repository. If that folder does not exist either, it is None.
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
    """The network that is compressed, and the source of its weights."""

    name: str = "resnet18"
    """A name in timm's registry, to which this project adds `digits_cnn`, `cifar_resnet20` and others; or
    `hf-hub:OWNER/NAME`; or `local-dir:FOLDER`, a folder with a config.json as timm saves it."""
    kwargs: dict[str, Argument] = {}
    """Further arguments of timm's `create_model` (patch_size, drop_path_rate, global_pool, ...), as in timm's
    `--model-kwargs`. They are part of the network, so the exported file contains them."""
    pretrained: bool = False
    """Load the pretrained weights of that name; timm downloads them if they are not in its cache."""
    checkpoint: str | None = None
    """File with your own weights instead of `pretrained`: a state dict, alone or inside the checkpoint of a training
    script, as `.safetensors` or saved by torch; or the index file of several shards. `${NAME}` is replaced by the
    environment variable NAME."""
    ema: bool = False
    """If the checkpoint has both the raw weights and their exponential moving average (EMA), load the average."""
    new_head: bool = False
    """If the weights are for another number of classes than the data has, replace the classifier by a new one with
    random weights. It has to be trained (`baseline.epochs`)."""
    random: bool = False
    """Allow a network whose weights are random because they are neither loaded nor trained."""
    fuse: bool = False
    """Before compression, merge the branches that timm can merge for inference (RepVGG, MobileOne, FastViT, ...), and
    turn weight-standardised convolutions into plain ones. The compressed weights are then those that inference
    multiplies by."""
    equalize: Literal["none", "layer", "filter"] = "none"
    """Before compression, rescale weights so that they have one size (root mean square): those in front of a BatchNorm;
    in transformers also those behind a LayerNorm, those of the projection of an attention, and those of the second
    layer of an MLP with ReLU.
    layer: one factor for each layer. filter: one factor for each filter, in transformers for each input channel. The
    outputs of the network stay the same, and a codebook that all layers share needs fewer values."""

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
        """Whether weights are loaded, from timm or from a file."""
        return self.pretrained or self.checkpoint is not None

    @property
    def without_weights(self) -> ModelConfig:
        """The configuration of the same network without a source of weights."""
        return self.model_copy(update={"pretrained": False, "checkpoint": None, "ema": False, "new_head": False})


class DataConfig(_Frozen):
    """The images, and how they are split and prepared; docs/data.md describes all kinds of data."""

    name: Literal["digits", "parquet", "imagefolder", "torchvision", "webdataset", "huggingface"] = "imagefolder"
    """Kind of data. digits: the handwritten digits that come with scikit-learn. imagefolder: `train/CLASS/*` and
    `val/CLASS/*` under `root`. parquet, webdataset: Parquet files or tar files under `root`. torchvision: the data set
    of torchvision that `dataset` names. huggingface: a data set that `dataset` names on the hub, or a folder `root` in
    any layout that Hugging Face's `datasets` reads."""
    root: str | None = None
    """Folder of the data; for parquet and webdataset also an address that begins with `s3://` or `hf://`. `${NAME}` is
    replaced by the environment variable NAME; if PWFN_DATA is not set, `${PWFN_DATA}` is `../shared/data`."""
    dataset: str | None = None
    """torchvision: name of a class in torchvision.datasets, and after a slash the variant of sets that have several
    (CIFAR100, EMNIST/letters). huggingface: name on the hub, optionally with a revision (uoft-cs/cifar10@main)."""
    subset: str | None = None
    """Name of the configuration, for a Hugging Face data set that has several."""
    cache: str | None = None
    """Folder for the Arrow files that `datasets` makes from Parquet and tar files. None: the default of `datasets`
    (HF_DATASETS_CACHE, or ~/.cache/huggingface/datasets)."""
    image_column: str | None = None
    """Name of the column with the images; None: the only such column."""
    label_column: str | None = None
    """Name of the column with the labels; None: the only such column."""
    train_split: str | None = None
    """Name of the training split, or of its folder under `root`; None: the split called train, training or similar."""
    validation_split: str | None = None
    """Name of the split on which the search measures accuracy. None: the official validation split if the data has a
    test split too, else images held out of the training split. With the name of the training split, images are always
    held out of it."""
    test_split: str | None = None
    """Name of the split that is measured at the end. None: the split called test, testing or similar, else the
    official validation split."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training images that is held out for the search if no split is used for it. The search never sees
    the test images."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the training images that is held out as test images if the data has no test split; they are the same for
    every seed. None: 0.2 for data sets that are published without one (digits, EuroSAT); other data is refused."""
    split_seed: int | None = None
    """Seed that decides which images are held out for validation. None: the seed of the study, so that all its trials
    use the same images."""
    train_images: Count | None = None
    """Number of training images to use, drawn at random by the split seed, from each class its share; None: all."""
    validation_images: Count | None = None
    """Number of validation images to use, drawn in the same way; None: all."""
    test_images: Count | None = None
    """Number of test images to use, drawn in the same way; None: all."""
    class_order: Literal["natural", "lexical"] | None = None
    """Order in which classes that are given by names (folders, text labels) get their numbers. natural: 2 before 10, as
    in timm. lexical: character by character, as in torchvision. None: lexical, but it is refused if the two orders
    differ, weights are loaded, and nothing names the classes of the weights; then choose one."""
    class_map: str | None = None
    """File that gives each class its number, instead of `class_order`: one name per line, as timm's `--class-map`, or
    JSON (a list of names, or an object with a number for each name). It may name classes that have no images."""
    channels: Literal[1, 3] | None = None
    """1: grey, 3: colour; all images are converted. None: 3 for image files; for small data sets 1 if all their images
    are grey, else 3."""
    exif_orientation: bool = False
    """Rotate photos as their EXIF data says. timm and torchvision do not, so pretrained networks have not seen that."""
    image_size: Count | None = None
    """Width and height of the network's input in pixels; None: the network's own."""
    use_test_size: bool = False
    """Use timm's input size and crop for testing a network, if they differ from those for training it."""
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest", "box", "hamming"] | None = None
    """Filter with which images are resized; None: the network's own."""
    crop_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the resized image's side that the central crop keeps (timm's crop_pct); None: the network's own."""
    crop_mode: Literal["center", "squash", "border"] | None = None
    """How an image becomes square, as in timm. center: keep its proportions and cut off the longer sides. squash:
    change its proportions. border: keep its proportions and add a border. None: the network's own."""
    augmentation: Augmentation = "flip"
    """Random changes of training images. flip: mirror them left to right with probability 1/2. crop_flip: also crop
    them: a random resized crop, or a shift by up to 1/8 of the side if the images are held in memory."""
    in_memory: bool | None = None
    """Decode all images once and keep them, prepared, in the memory of the device. None: only if they are small (sides
    up to 96 pixels) and do not come from image files."""
    broken_images: Literal["refuse", "skip"] = "refuse"
    """What happens when an image cannot be decoded. refuse: the trial ends. skip: the image is left out; in training,
    another one takes its place."""
    loader_workers: Annotated[int, Field(ge=0)] = 4
    """Number of processes for each training worker that decode images, if these are not held in memory. With 0 the
    trial's own process decodes them; then only search.trial_minutes limits the wait for a file that does not answer."""
    loader_timeout: Positive = 300.0
    """Seconds that the trial waits for a batch from its `loader_workers`, before it fails. There is no such limit if
    `loader_workers` is 0, and none while a set is prepared to be held in memory."""

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


def _as_tuple(numbers: Any) -> Any:
    """Turn a list, or a single number that stands for all, into a tuple."""
    if isinstance(numbers, int | float):
        return (numbers,)
    return tuple(numbers) if isinstance(numbers, list) else numbers


class OptimizationConfig(_Frozen):
    """An optimiser, its learning rate and its batches."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD with momentum, or Adam (betas 0.9, 0.999)."""
    lr: Positive = 0.001
    """Learning rate at the start of the schedule."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """constant: the learning rate stays. cosine: it falls to zero along half a cosine. The schedule of `training`
    starts again in every round (with qat in every stage)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; Adam ignores it."""
    weight_decay: NonNegative = 1e-4
    """Factor of the L2 penalty, which is added to the gradient of everything that is trained."""
    clip_norm: Positive | None = 1.0
    """Largest norm of the gradient; a larger gradient is scaled down to this norm. None: no limit."""
    batch_size: Count = 128
    """Number of images per training step, over all workers together."""


class BaselineConfig(OptimizationConfig):
    """Training of the float network before compression; it happens once, and every trial starts from its result.

    It can be trained as timm's train.py trains a network: most fields have the names of that script's options.
    """

    epochs: Annotated[int, Field(ge=0)] = 0
    """Number of epochs; 0: use the network as it was loaded."""
    allow_chance: bool = False
    """Continue although the loaded network is hardly better than chance. Otherwise this ends the study: in most cases
    the network has its classes in another order than the data."""
    opt: str | None = None
    """Name of an optimiser of timm.optim (adamw, lamb, lookahead_radam, ...), instead of `optimizer`. `weight_decay` is
    then that of the optimiser itself (decoupled with adamw), and does not act on biases, norm layers and what a network
    excludes, such as positional embeddings. `sched` is its schedule. None: `optimizer` and `lr_schedule`."""
    opt_kwargs: dict[str, Argument] = {}
    """Further arguments of `opt`, for example {betas: [0.9, 0.95], eps: 1.0e-6}."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor on the learning rate of `opt` from each group of layers to the one before it. None: one learning rate."""
    sched: Literal["cosine", "tanh", "step", "multistep", "poly", "wsd", "rsqrt", "constant"] = "cosine"
    """Schedule of timm.scheduler for `opt`; it sets the learning rate anew in every training step."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Number of epochs, out of `epochs`, in which the learning rate rises evenly from `warmup_lr`."""
    warmup_lr: NonNegative = 1e-5
    """Learning rate with which `warmup_epochs` begin."""
    min_lr: NonNegative = 0.0
    """Lowest learning rate of `sched`."""
    cooldown_epochs: Annotated[int, Field(ge=0)] = 0
    """Number of epochs with the lowest learning rate after `epochs`, for cosine, tanh and poly."""
    decay_epochs: Positive | None = None
    """step: number of epochs between two decays (None: 90). wsd, rsqrt: number of epochs of the decay at the end, or
    below 1 their share (None: 0.2)."""
    decay_milestones: Annotated[tuple[Count, ...], Field(min_length=1)] = (90, 180, 270)
    """Epochs before which `sched: multistep` decays the learning rate."""
    decay_rate: Positive = 0.1
    """Factor of each decay with step and multistep; the exponent with poly."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing: share of the target that all classes get in equal parts."""
    mixup: NonNegative = 0.0
    """Alpha of the beta distribution from which mixup draws the shares of two images; 0: no mixup."""
    cutmix: NonNegative = 0.0
    """The same for CutMix, which replaces a rectangle of an image by that of another; 0: no CutMix."""
    mixup_prob: Fraction = 1.0
    """Probability that a batch (or with `mixup_mode: elem` an image) is mixed."""
    mixup_switch_prob: Fraction = 0.5
    """Probability of CutMix instead of mixup where both are on."""
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    """What has a share of its own: the batch, a pair of images, or each image."""
    aa: str | None = None
    """Automatic augmentation in timm's notation, after `data.augmentation`: RandAugment (rand-m9-mstd0.5-inc1), AugMix
    (augmix-m5-w4-d2) or AutoAugment (original-mstd0.5). None: none."""
    reprob: Fraction = 0.0
    """Probability with which random erasing replaces a rectangle of an image."""
    remode: Literal["const", "rand", "pixel"] = "pixel"
    """What random erasing puts there. const: the mean colour. rand: one random colour. pixel: a random colour in each
    pixel."""
    recount: Count = 1
    """Largest number of rectangles in an image."""
    augment_epochs: Annotated[int, Field(ge=0)] | None = None
    """Number of epochs with mixup, CutMix, `aa` and random erasing; the later ones have only `data.augmentation`. None:
    all epochs."""
    model_ema: bool = False
    """Whether the float network is the moving average of the weights of all training steps (timm's ModelEmaV3)."""
    model_ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9998
    """Factor on the average in each training step."""
    model_ema_warmup: bool = False
    """Whether that factor begins at 0 and grows."""
    teacher: ModelConfig | str | None = None
    """Another network, whose predictions this one learns (knowledge distillation): the fields of a `model`, or the path
    of an exported file (.pwfn.safetensors). It must tell the same classes apart, and sees the same augmented images,
    normalised as it wants them. `${NAME}` is replaced by the environment variable NAME."""
    distillation: Fraction = 0.0
    """Weight, in the loss, of the divergence from the teacher's predictions; the loss on the labels has the rest."""
    temperature: Positive = 1.0
    """Temperature of both predictions in `distillation`."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Precision of this training, as `training.precision`; None: the same as there."""

    @field_validator("opt_kwargs")
    @classmethod
    def _are_no_fields(cls, opt_kwargs: dict[str, Argument]) -> dict[str, Argument]:
        for name in ARGUMENTS_OF_FIELDS:
            if name in opt_kwargs:
                raise ValueError(f"{name} has a field of its own: use baseline.{name}={opt_kwargs[name]}")
        return opt_kwargs

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others."""
        return self.mixup > 0 or self.cutmix > 0

    @model_validator(mode="after")
    def _one_optimizer(self) -> BaselineConfig:
        if self.opt is None:
            self._require_defaults(OF_OPT, "opt, an optimiser of timm.optim")
            return self
        self._require_defaults(("optimizer", "lr_schedule"), "opt: null (opt and sched take their place)")
        if self.warmup_epochs > self.epochs > 0:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} are more than epochs={self.epochs}")
        return self

    @model_validator(mode="after")
    def _teaches(self) -> BaselineConfig:
        if self.teacher is None:
            self._require_defaults(("distillation", "temperature"), "teacher, the network to learn from")
        elif self.distillation == 0:
            raise ValueError("teacher has no effect with distillation=0; give distillation, its weight in the loss")
        elif isinstance(self.teacher, ModelConfig) and not (self.teacher.has_weights or self.teacher.random):
            raise ValueError("teacher has random weights: give its checkpoint, or pretrained: true")
        return self

    @model_validator(mode="after")
    def _changes_something(self) -> BaselineConfig:
        if not self.mixes:
            names = ("mixup_prob", "mixup_switch_prob", "mixup_mode")
            self._require_defaults(names, "mixup or cutmix above 0")
        if self.reprob == 0:
            self._require_defaults(("remode", "recount"), "reprob above 0")
        if not self.model_ema:
            self._require_defaults(("model_ema_decay", "model_ema_warmup"), "model_ema: true")
        return self

    def _require_defaults(self, names: tuple[str, ...], needed: str) -> None:
        """Raise ValueError for a field that has no effect without another one."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True):
                raise ValueError(f"{name}={getattr(self, name)} has no effect without {needed}")


OF_OPT = (
    "opt_kwargs", "layer_decay", "sched", "warmup_epochs", "warmup_lr", "min_lr", "cooldown_epochs", "decay_epochs",
    "decay_milestones", "decay_rate",
)  # fmt: skip
"""Fields of `BaselineConfig` that belong to `opt`."""


class TrainingConfig(OptimizationConfig):
    """Training of a trial: before each fixing, and after the last one."""

    start_epochs: Annotated[int, Field(ge=0)] = 1
    """Number of epochs before the first fixing."""
    start_fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the batches that an epoch of the first round uses; 0.05 as in PWFN."""
    rest_epochs: Annotated[int, Field(ge=0)] = 3
    """Number of epochs before each later fixing."""
    steps_per_epoch: Count | None = None
    """Largest number of training steps in an epoch, for short trials; None: no limit."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: the network computes in bfloat16 (autocast); weights, gradients and optimiser state stay float32."""
    tf32: bool = False
    """On a GPU, round the factors of float32 products and convolutions to ten bits of significand (TF32), wherever the
    trial computes: faster, with errors of about 1e-3. A CPU ignores it."""
    cudnn_benchmark: bool = False
    """On a GPU, let cuDNN measure which algorithm is fastest for each convolution (`torch.backends.cudnn.benchmark`).
    Its choice, and with it the last bits of a result, may differ from run to run. A CPU ignores it."""
    channels_last: bool = False
    """Let the weights of a trial's convolutions lie in memory as its images do, channels last, so that a GPU need not
    bring them into this order in every step. The same training follows, except for rounding and that the noise of a
    seed (pwfn) falls on other weights."""
    cuda_graph: bool = False
    """On a GPU, record a training step once in each epoch and then launch it as a whole (a CUDA graph): for small
    networks, whose kernels a host launches more slowly than a GPU runs them. It serves the rounds of pwfn and wfn with
    SGD and one worker; other training, and a CPU, ignore it."""
    fused: bool = True
    """On a GPU, compile what a training step computes beside the network into a few kernels (`torch.compile`), which
    takes up to a minute at the start of a process. Where that is not possible, a warning says so, and the step is
    slower. A CPU ignores it."""
    distillation: Fraction = 0.0
    """Weight, in the loss, of the divergence from the float network's predictions; the cross-entropy of the labels has
    the rest. A network that already fits its training images learns little from their labels."""
    temperature: Positive = 1.0
    """Temperature of both predictions in `distillation`; the higher it is, the more unlikely classes count."""
    settle_epochs: Annotated[int, Field(ge=0)] = 0
    """Number of epochs after the last fixing (with qat after each stage), for methods that train. They train what is
    not fixed, such as norm layers. With qat, and with pwfn unless `codebook: lattice`, they also train the shared
    values, each together with all its weights."""


class EvaluationConfig(_Frozen):
    """Measuring of accuracy."""

    batch_size: Count = 512
    """Number of images per forward pass."""
    recalibrate_bn: bool = True
    """Estimate BatchNorm's statistics again, without weight noise, before a whole compressed network is measured."""
    recalibration_images: Count = 4096
    """Number of training images for `recalibrate_bn`, augmented as in training."""
    ensemble_draws: Annotated[int, Field(ge=0)] = 0
    """Number of networks drawn from the posterior (PWFN only). The test accuracy of their mean prediction is measured
    too, and the exported file keeps the sigmas. 0: neither."""


class ResourcesConfig(_Frozen):
    """The resources that one trial uses on the cluster."""

    workers: Count = 1
    """Number of data-parallel processes. 1: the trial's own process. More: workers of Ray Train."""
    cpus_per_worker: Positive = 1
    """Number of CPUs for each worker, and of the threads that torch uses in it."""
    gpus_per_worker: NonNegative = 0
    """GPUs for each worker, at most 1; below 1, several small trials of one worker share a GPU and its memory."""
    custom: dict[str, Positive] = {}
    """Ray's custom resources for each worker, to choose nodes of a mixed cluster, for example {a100: 1}."""

    @model_validator(mode="after")
    def _can_be_placed(self) -> ResourcesConfig:
        gpus = self.gpus_per_worker
        if gpus > 1:
            raise ValueError(
                f"gpus_per_worker={gpus:g}, but a worker uses one GPU: for {gpus:g} GPUs use "
                f"gpus_per_worker=1 with workers={math.ceil(gpus) * self.workers}"
            )
        if self.workers > 1 and 0 < gpus < 1:
            raise ValueError(
                f"workers={self.workers} with gpus_per_worker={gpus:g}: NCCL refuses two workers of one trial on one "
                "GPU; use gpus_per_worker=1, or workers=1"
            )
        amounts = {"cpus_per_worker": self.cpus_per_worker, "gpus_per_worker": gpus}
        for name, amount in {**amounts, **{f"custom.{name}": each for name, each in self.custom.items()}}.items():
            if 0 < amount < 1e-4:
                raise ValueError(f"{name}={amount:g} is less than Ray can count: at least 0.0001")
        return self

    @field_validator("custom")
    @classmethod
    def _are_not_rays_own(cls, custom: dict[str, float]) -> dict[str, float]:
        fields = {"CPU": "cpus_per_worker", "GPU": "gpus_per_worker"}
        for name in custom:
            if name in fields:
                raise ValueError(f"{name} is no custom resource: use resources.{fields[name]}")
            if name in ("memory", "object_store_memory"):
                raise ValueError(f"{name} is no custom resource of a trial: Ray counts it by itself")
        return custom


class PwfnConfig(_Frozen):
    """PWFN: how far each weight may move to a shared sum of powers of two depends on learned weight noise."""

    name: Literal["pwfn"] = "pwfn"
    fractions: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = PWFN_FRACTIONS
    """Cumulative share of the weights fixed after each round: increasing, the last one 1."""
    regularization: Literal["linear", "exponential", "linear_on_grad"] = "linear"
    """Form of the regulariser, which keeps the sigmas (the size of the noise of each weight) from shrinking to zero."""
    regularization_strength: NonNegative = 2.0**-11
    """Strength of the regulariser, the paper's lambda."""
    sigma_target: Positive = 0.05
    """Sigma up to which the regulariser acts, the paper's S, in units of weights; also the largest initial sigma."""
    b: Annotated[int, Field(ge=1, le=20)] = 7
    """The smallest positive value of the codebook is 2^-b."""
    start_sigma: Positive = 1.0
    """Radius of the first round: the number of its own sigmas that a weight may move to a value."""
    end_sigma: Positive = 1.0
    """Radius of the last round; between the first and the last round it changes evenly."""
    radius_growth: Annotated[float, Field(gt=1)] = 2.0
    """Factor by which the radius grows within a round when no value reaches a free weight any more (see `growth`)."""
    max_order: Annotated[int, Field(ge=1, le=8)] = 4
    """Largest number of powers of two that are summed to one value."""
    growth: Literal["alternate", "radius_first", "nearest"] = "alternate"
    """What happens in a round when no value reaches a free weight any more. alternate: in turn, sums may have one more
    power of two, and the radius grows (the paper). radius_first: the radius grows up to 8 times the first one before
    sums may have a second power of two, because most of the values are such sums. nearest: sums may have more powers of
    two, but the radius does not grow. Weights that are still needed go to the nearest value that exists; otherwise the
    last weights of a round, often the largest, would get values of their own."""
    codebook: Literal["lattice", "free", "kmeans"] = "lattice"
    """lattice: values are sums of powers of two, which are cheap to multiply by. free: after each fixing every value
    except zero moves to the mean of its weights, for users who want few values and do not need cheap ones; with
    `recluster: free` it moves only once, when its first weights are fixed. kmeans: each round finds `num_values` values
    with the least sum of squared distances to all weights, in sigmas, and fixes the weights nearest to their values
    first. With kmeans, the fields of the lattice (b, start_sigma, end_sigma, radius_growth, max_order, growth,
    zero_rule, recluster) have no meaning; only `fixed_weights: live` still uses start_sigma and end_sigma."""
    num_values: Annotated[int, Field(ge=1, le=4096)] = 16
    """Largest number of distinct values with `codebook: kmeans`; other codebooks ignore it."""
    zero_rule: bool = True
    """Whether weights with a magnitude below 2^-b count as being at distance zero from the value zero."""
    sigma_join: Literal["std_mu", "mean_sigma", "keep_the_same_divide_by_2", "keep_the_same_divide_by_10",
                        "allow_retraining"] = "std_mu"  # fmt: skip
    """The sigma of weights after a round fixed them to one value together. std_mu: the standard deviation of these
    weights. mean_sigma: the root mean square of their sigmas. keep_the_same_divide_by_N: each one's own sigma, divided
    by N. allow_retraining: each one's own sigma, which is trained further."""
    recluster: Literal["all", "free"] = "all"
    """all: every round assigns all weights again, so that a weight fixed earlier may get another value. free: weights
    fixed earlier keep their value."""
    fixed_weights: Literal["hold", "live"] = "hold"
    """hold: a fixed weight keeps its value until a later fixing gives it another one (the paper). live: behind its
    value a fixed weight keeps a latent weight, which is trained further by the gradient of the value. In each training
    step the weight has the value of the last fixing that is nearest to its latent weight. The latent weight stays
    within the round's radius (from `start_sigma` to `end_sigma`, with every codebook), times the weight's sigma, of the
    point where it was when it was fixed. This also holds after the last fixing, for `training.settle_epochs`. Needs
    `recluster: all`."""
    noise: bool = True
    """Whether training draws the weights from the posterior; if not, training is plain, without noise."""
    prior: bool = True
    """Whether `sigma_init` gives the initial sigmas; if not, all are 1e-4."""
    sigma_init: Literal["paper", "fisher"] = "paper"
    """paper: the farther a weight is from the powers of two on both sides of it, the larger is its initial sigma.
    fisher: the less the predictions depend on a weight, the larger is its initial sigma (a Laplace posterior, estimated
    from `fisher_images`); the distance to a power of two does not say how much a move costs."""
    fisher_images: Count = 500
    """Number of training images, without augmentation, from which the Fisher information is estimated."""
    sigma_scale: Positive = 0.0025
    """The 75 % quantile of the initial sigmas of each tensor, in units of the weights."""
    noise_epochs: Annotated[int, Field(ge=0)] = 0
    """Number of epochs, over all training images, that train weights and sigmas under noise before the first round. (A
    public copy of the published script starts from such a network, one for each learning rate and strength.)"""
    fixed_sigma_first: bool = False
    """In the `noise_epochs`, train the sigmas alone: the float network stays as it is, and each weight learns how much
    noise it bears. The published script's `--fixed_sigma_first`."""
    alternate: bool = False
    """In each round, train the weights for all epochs and then their sigmas for as many epochs. If not, both train
    together, in half the steps."""

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
    def _trains_under_noise_first(self) -> PwfnConfig:
        if self.fixed_sigma_first and self.noise_epochs == 0:
            raise ValueError("fixed_sigma_first=true has no effect without noise_epochs, the number of its epochs")
        if self.noise_epochs > 0 and not self.noise:
            raise ValueError(f"noise_epochs={self.noise_epochs} train under noise, but noise is false; use noise: true")
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
    """Check that the cumulative fractions strictly increase and end at 1.

    Raises:
        ValueError: they do not.
    """
    if fractions[-1] != 1 or any(later <= earlier for earlier, later in pairwise(fractions)):
        raise ValueError(f"fractions must increase and end at 1.0, but got {list(fractions)}")


WFN_FRACTIONS = (0.3, 0.6, 0.8, 0.9, 0.95, 0.975, 0.99, 0.9975, 0.999, 1.0)
"""Cumulative share of the weights that is fixed after each round (WFN, section 3)."""


class WfnConfig(_Frozen):
    """WFN: weights move by a limited relative distance to a geometric grid of sums of few powers of two."""

    name: Literal["wfn"] = "wfn"
    fractions: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = WFN_FRACTIONS
    """Cumulative share of the weights fixed after each round: increasing, the last one 1."""
    delta: Annotated[float, Field(ge=0.001, lt=1)] = 0.01
    """Mean relative distance that weights may move in the last round. In the n-th round before the last it is n + 1
    times as much. It also determines the spacing of the grid, which has about ln(largest weight / zero_distance) /
    delta values."""
    zero_distance: Annotated[float, Field(ge=2.0**-20, lt=1)] = 2.0**-7
    """Weights with a smaller magnitude may become zero; also the smallest positive value of the grid."""
    include_norm: bool = False
    """Whether the scales and shifts of norm layers are fixed too."""
    regularization_ratio: NonNegative = 0.4
    """Size of the penalty that pulls weights towards the codebook, as a share of the cross-entropy."""
    temperature: Annotated[float, Field(ge=0.001, le=10)] = 0.05
    """Temperature of the softmin over the values in that penalty, as a relative distance; the lower it is, the more
    only the nearest values count."""

    @model_validator(mode="after")
    def _fractions_increase_to_one(self) -> WfnConfig:
        check_fractions(self.fractions)
        return self


class AlphabetConfig(_Frozen):
    """An alphabet of 2^bits + 1 evenly spaced levels around zero (Zhang et al., arXiv 2201.11113, section 3).

    The biases of a layer have the alphabet of its weights if it reaches the largest bias; otherwise they have one with
    as many levels, up to the largest bias.
    """

    bits: Annotated[int, Field(ge=1, le=12)] = 4
    """The alphabet has 2^bits + 1 levels; 1 is the ternary alphabet."""
    scale: Positive = 1.0
    """Factor by which the radius is multiplied, the papers' C."""
    radius: Literal["percentile", "median"] = "percentile"
    """The largest level before `scale`. percentile: the mean over neurons of the `percentile` quantile of |weight|.
    median: the median of |weight| in the layer."""
    percentile: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The quantile for `radius: percentile`, in (0, 1]; 1 is the largest |weight| of each neuron."""
    shared_alphabet: bool = False
    """Whether the whole network has one radius, so that all layers have the same values; if not, each has its own."""


class GpfqConfig(AlphabetConfig):
    """GPFQ: greedy path-following quantisation of a trained network, layer by layer, on a small calibration set."""

    name: Literal["gpfq"] = "gpfq"
    calibration_images: Count = 1024
    """Number of training images, without augmentation, on whose activations the layers are quantised."""
    rounding: Literal["nearest", "stochastic"] = "nearest"
    """nearest: a number becomes the nearest level. stochastic: it becomes the level below or above it at random, so
    that the mean is the number itself."""
    sparsify: Literal["none", "l1", "l0"] = "none"
    """Makes weights sparse, not biases. l1: every number is reduced by `threshold` in magnitude before it is rounded.
    l0: numbers up to `threshold` in magnitude become zero, and all other levels are shifted outwards by `threshold`."""
    threshold: NonNegative = 0.0
    """Threshold of `sparsify`, in units of the weights; unused with `sparsify: none`."""
    order: Literal["natural", "activation"] = "natural"
    """Order in which the features of a layer are quantised. natural: as they are stored. activation: those with the
    largest inputs first."""
    max_gram_features: Count = 8192
    """Layers with more features are quantised on this many samples of their inputs, instead of with Gram matrices of
    all samples, to save memory."""


class MsqConfig(AlphabetConfig):
    """MSQ: rounding to the nearest level of GPFQ's alphabet, the baseline of GPFQ."""

    name: Literal["msq"] = "msq"


class KmeansConfig(_Frozen):
    """K-means of the trained weights, computed exactly, without further training."""

    name: Literal["kmeans"] = "kmeans"
    num_values: Annotated[int, Field(ge=1, le=4096)] = 16
    """Largest number of distinct values, with `scope: tensor` for each tensor. Zero need not be one of them."""
    scope: Literal["network", "tensor"] = "network"
    """network: one codebook for the whole network. tensor: one codebook for each tensor."""
    weighting: Literal["plain", "fisher"] = "plain"
    """What the values minimise. plain: the squared error of the weights. fisher: the squared error, weighted by how
    much the predictions change with each weight."""
    fisher_images: Count = 500
    """Number of training images, without augmentation, from which the Fisher information is estimated."""
    assignment: Assignment = "nearest"
    """How weights get their values. nearest: each the nearest value. The others go layer by layer. path_following: as
    GPFQ does, each weight of a neuron makes good for the errors of those before it. gptq: as GPTQ does, all weights of
    a neuron that are still free make good for an error together, so that the layer gives what it gives in the float
    network; best by far for few values (docs/log.md)."""
    calibration_images: Count = 500
    """Number of training images, without augmentation, whose activations path_following and gptq use."""
    max_order: Annotated[int, Field(ge=1, le=8)] | None = None
    """Round each value to the nearest sum of at most this many powers of two, then move each weight to the nearest of
    these sums; values with the same sum become one. None: no rounding."""


QAT_STAGES = (16, 8, 4, 3, 2)
"""Numbers of values in the stages of qat by default."""


class QatConfig(_Frozen):
    """Straight-through training of one codebook for the whole network; no weight is fixed before a stage ends.

    Behind every weight there is a latent weight; the network sees a value of the codebook in its place. The gradient of
    this value is used for the latent weight without change. A value moves by the mean gradient of its weights.
    """

    name: Literal["qat"] = "qat"
    num_values: Annotated[int, Field(ge=1, le=256)] | None = None
    """Number of values of the codebook, for training in a single stage; instead of `stages`."""
    stages: tuple[Annotated[int, Field(ge=1, le=256)], ...] = ()
    """Number of values of the codebook in each stage, each smaller than the one before. Each stage ends in a whole
    network, which is measured and kept; the next stage starts from k-means of the latent weights. If neither this nor
    `num_values` is given: 16, 8, 4, 3, 2."""
    stage_rounds: Annotated[tuple[Count, ...], Field(min_length=1)] = (3,)
    """Number of rounds in each stage, or one number for all stages. A round trains for `training.rest_epochs` epochs,
    and is then measured and kept. (The very first round trains for `training.start_epochs` epochs, with the share
    `training.start_fraction` of their steps.) Rounds do not change the training: few long rounds give the same result
    as many short ones, except for the order of the images."""
    later_lr_ratio: Annotated[tuple[Positive, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (0.7,)
    """Learning rate of the stages after the first, as a share of `training.lr`: one number for all of them, or one for
    each. The fewer values there are, the larger the best learning rate is. Each stage has its own schedule."""
    values: Literal["free", "powers_of_two"] = "free"
    """free: a value may be any number. powers_of_two: a value is a sum of at most `max_order` powers of two, the
    smallest 2^-b; a multiplication by it needs as many shifts."""
    max_order: Annotated[int, Field(ge=1, le=4)] = 2
    """Largest number of powers of two that are summed to one value; used with `values: powers_of_two`."""
    b: Annotated[int, Field(ge=1, le=20)] = 7
    """The smallest power of two is 2^-b; used with `values: powers_of_two`."""
    zero: bool = False
    """Whether one value of the codebook is exactly zero during the whole training."""
    rate_strength: NonNegative = 0.0
    """lambda: a weight w takes the value c with the least importance * (w - c)^2 / mean(w^2) + lambda * bits(c), where
    bits(c) is -log2 of the share of the weights that have c. The larger lambda is, the fewer bits per weight are
    needed.
    0: a weight takes the nearest value."""
    weighting: Literal["plain", "fisher"] = "fisher"
    """Importance of a weight when values are chosen: at the start of each stage, and with `rate_strength` in each
    training step. plain: 1 for all weights. fisher: how much the predictions change with the weight."""
    fisher_images: Count = 500
    """Number of training images, without augmentation, from which each stage estimates the Fisher information."""
    stage_start: Literal["latent", LayerwiseAlgorithm] = "latent"
    """Latent weights that a stage starts from. latent: those that the stage before has left; those of the first are
    the float weights. path_following, gptq: the values of the stage, given to the network as it is in that way, as
    `assignment` of kmeans does."""
    calibration_images: Count = 500
    """Number of training images, without augmentation, whose activations path_following and gptq use."""
    dampening: NonNegative = 0.0
    """Holds back weights that cross from one value to the next and back: after each step a latent weight goes a share
    of the way to its value, lr * dampening * (share of the stage's steps that are done) / (root mean square of the
    latent weights when the stage began). After Nagel et al., ICML 2022, arXiv 2203.11086, section 4.1."""
    values_lr_ratio: NonNegative = 0.3
    """Learning rate of the values, as a share of that of the weights; 0: they stay as k-means chose them."""
    gradual_start: Fraction = 0.0
    """Share of the training steps of the first stage in which the network goes over evenly from the latent weights to
    their values. 0: it sees the values from the first step on."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of the codebook in each stage."""
        if self.num_values is not None:
            return (self.num_values,)
        return self.stages or QAT_STAGES

    @property
    def rounds_of_stages(self) -> tuple[int, ...]:
        """Number of rounds in each stage."""
        return self.stage_rounds * len(self.sizes) if len(self.stage_rounds) == 1 else self.stage_rounds

    @property
    def lr_ratios(self) -> tuple[float, ...]:
        """Learning rate of each stage, as a share of `training.lr`."""
        later = self.later_lr_ratio
        return (1.0, *(later * (len(self.sizes) - 1) if len(later) == 1 else later))

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
        if len(self.lr_ratios) != len(self.sizes):
            raise ValueError(
                f"later_lr_ratio must be one number, or one for each of the {len(self.sizes) - 1} stages after the "
                f"first, but got {list(self.lr_ratios[1:])}"
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
    """Seed of everything random in this trial except the split; a sweep derives it from the seed of the study."""

    @property
    def split_seed(self) -> int:
        """Seed of the split and of random weights: `data.split_seed`, which a study sets, else the trial's own seed."""
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
        share = self.baseline.batch_size // self.resources.workers
        if self.baseline.mixes and share % 2 != 0:
            raise ValueError(
                f"baseline.mixup and cutmix mix images in pairs, but baseline.batch_size="
                f"{self.baseline.batch_size} gives each of {self.resources.workers} workers {share} images; "
                "use an even number for each"
            )
        return self
