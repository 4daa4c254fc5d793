"""A teacher is opened for the student's classes and images, or refused in one line."""

import pytest
import torch
from pydantic import ValidationError

from pwfn.config import BaselineConfig, DataConfig, ModelConfig, TrialConfig
from pwfn.errors import UserError
from pwfn.export import describe_network, encode_network
from pwfn.float_network import baseline_key
from pwfn.models import build_network
from pwfn.trial.opening import network_for, open_data
from pwfn.trial.teacher import open_teacher


def config_with(teacher, **fields) -> TrialConfig:
    baseline = BaselineConfig(epochs=1, teacher=teacher, distillation=0.5, **fields)
    return TrialConfig(model=ModelConfig(name="digits_cnn"), data=DataConfig(name="digits"), baseline=baseline)


def opened(config):
    source = open_data(config)
    return open_teacher(config, source, network_for(config, config.model, source))


def exported(path, num_classes=10, channels=1, names=None):
    network = build_network(ModelConfig(name="digits_mlp"), num_classes=num_classes, in_channels=channels)
    path.write_bytes(encode_network(network, describe_network(network, class_names=names)))
    return network


def test_an_exported_file_teaches_what_it_predicts(tmp_path):
    network = exported(tmp_path / "net.pwfn.safetensors", names=[str(digit) for digit in range(10)])
    teacher = opened(config_with(str(tmp_path / "net.pwfn.safetensors")))
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(teacher(images), network(images))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"num_classes": 7}, "tells 7 classes apart, but the data has 10"),
        ({"names": list("abcdefghij")}, "the classes of .* and of the data differ: class 0 is '0' and 'a'"),
        ({"channels": 3}, "is made for 8x8 images of 3 channels and cannot take 8x8 ones of 1 channels"),
        (None, "net.pwfn.safetensors: No such file.*any other network is {name: NAME, checkpoint: FILE}"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, file, message):
    path = tmp_path / "net.pwfn.safetensors"
    if file is not None:
        exported(path, **file)
    with pytest.raises(UserError, match=f"^baseline.teacher: .*{message}") as error:
        opened(config_with(str(path)))
    assert "\n" not in str(error.value)


def test_a_model_whose_checkpoint_has_other_classes_is_refused(tmp_path):
    torch.save(build_network(ModelConfig(name="digits_cnn"), num_classes=7, in_channels=1).state_dict(),
               tmp_path / "net.pt")  # fmt: skip
    model = ModelConfig(name="digits_cnn", checkpoint=str(tmp_path / "net.pt"))
    with pytest.raises(UserError, match=r"^baseline.teacher: .*7.*10"):
        opened(config_with(model))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"opt": "adamw", "opt_kwargs": {"lr": 3}}, "lr has a field of its own: use baseline.lr=3"),
        ({"sched": "poly"}, "sched=poly has no effect without opt"),
        ({"opt": "adamw", "lr_schedule": "cosine"}, "lr_schedule=cosine has no effect without opt: null"),
        ({"opt": "adamw", "epochs": 2, "warmup_epochs": 3}, "warmup_epochs=3 are more than epochs=2"),
        ({"distillation": 0.5}, "distillation=0.5 has no effect without teacher"),
        ({"teacher": "net"}, "teacher has no effect with distillation=0"),
        ({"teacher": ModelConfig(name="resnet18"), "distillation": 0.5}, "teacher has random weights"),
        ({"mixup_mode": "pair"}, "mixup_mode=pair has no effect without mixup or cutmix above 0"),
        ({"remode": "rand"}, "remode=rand has no effect without reprob above 0"),
        ({"model_ema_decay": 0.9}, "model_ema_decay=0.9 has no effect without model_ema: true"),
    ],
)
def test_fields_that_would_have_no_effect_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        BaselineConfig(**fields)


def test_mixing_needs_an_even_number_of_images_for_each_worker():
    with pytest.raises(ValidationError, match=r"baseline.batch_size=10 gives each of 2 workers 5 images"):
        TrialConfig.model_validate({"data": {"name": "digits"}, "baseline": {"mixup": 0.5, "batch_size": 10},
                                    "resources": {"workers": 2}})  # fmt: skip


def test_keys_from_before_these_fields_stay_valid():
    config = TrialConfig(
        model=ModelConfig(name="digits_cnn"),
        data=DataConfig(name="digits"),
        baseline=BaselineConfig(
            epochs=30, lr=0.05, lr_schedule="cosine", batch_size=64, optimizer="adam", allow_chance=True
        ),
    )
    assert baseline_key(config) == "digits_cnn-20fefb9343b3021f"
    smoothed = config.model_copy(update={"baseline": config.baseline.model_copy(update={"smoothing": 0.1})})
    assert baseline_key(smoothed) != baseline_key(config)
