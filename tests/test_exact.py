"""What a GPU may do with float32 products; the flags can be read without one."""

import torch

from pwfn.config import DataConfig, ModelConfig, TrainingConfig, TrialConfig
from pwfn.exact import allow_tf32, exact_float32
from pwfn.replicas import Replicas
from pwfn.trial.opening import open_task


def precisions() -> set[str]:
    cudnn = torch.backends.cudnn
    return {each.fp32_precision for each in (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)}


def test_a_trial_allows_tf32_as_it_says_whatever_the_trial_before_it_did():
    config = TrialConfig(model=ModelConfig(name="digits_mlp", random=True), data=DataConfig(name="digits"))
    for tf32, expected in ((True, {"tf32"}), (False, {"ieee"})):
        training = TrainingConfig(tf32=tf32)
        asked = config.model_copy(update={"training": training})
        open_task(asked, asked.model, torch.device("cpu"), Replicas())
        assert precisions() == expected


def test_comparisons_are_exact_and_leave_the_setting_as_it_was():
    allow_tf32(True)
    with exact_float32():
        assert precisions() == {"ieee"}
    assert precisions() == {"tf32"}
    allow_tf32(False)
