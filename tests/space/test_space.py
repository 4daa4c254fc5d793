import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal, get_args

import pytest
from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML

from pwfn.config import DataConfig, MethodConfig, ResourcesConfig, TrialConfig
from pwfn.errors import UserError
from pwfn.results.schema import TRIALS
from pwfn.space.constraints import total_violation
from pwfn.space.declaration import SEARCHABLE, Origin, Override, Sampler, SearchConfig
from pwfn.space.fields import Fields
from pwfn.space.space import SHIPPED, SearchSpace

METHODS = " or ".join(member.__name__ for member in get_args(MethodConfig))
*FIRST, LAST = map(repr, get_args(Sampler))
SAMPLERS = f"{', '.join(FIRST)} or {LAST}"

BASE = """
fixed:
  data: {name: digits}
  model: {name: digits_cnn}
vary:
  method.b: {int: [3, 8]}
  training.lr: {log_float: [1e-4, 1e-2]}
  training.optimizer: {choice: [sgd, adam]}
  training.momentum: {float: [0, 0.95], when: {training.optimizer: sgd}}
"""


@pytest.fixture
def write(tmp_path):
    def write_space(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write_space


@pytest.fixture
def load(write):
    return lambda text, *args, **kwargs: SearchSpace.load(write(text), *args, **kwargs)


@pytest.fixture
def message(load):
    def message_of(text, *args, **kwargs):
        with pytest.raises(UserError) as caught:
            load(text, *args, **kwargs)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message_of


class TestTrialConfig:
    def test_puts_params_over_fixed_over_defaults(self, load):
        config = load(BASE).trial_config({"method.b": 5, "training.optimizer": "adam"}, 0)
        assert (config.model.name, config.method.b, config.training.optimizer) == ("digits_cnn", 5, "adam")
        assert config.training.lr == TrialConfig(data=DataConfig(name="digits")).training.lr

    def test_lists_become_tuples(self, load):
        space = load(BASE + "  method.fractions: {choice: [[0.5, 1.0], [0.2, 0.6, 1]]}\n")
        assert space.trial_config({"method.fractions": [0.2, 0.6, 1]}, 0).method.fractions == (0.2, 0.6, 1.0)

    def test_seed_follows_from_study_seed_and_number_only(self, load):
        space, other = load(BASE), load(BASE, seed=1)
        seeds = [space.trial_config({"method.b": b}, number).seed for b in (3, 4) for number in range(50)]
        assert seeds[:50] == seeds[50:]
        assert len(set(seeds)) == 50
        assert other.trial_config({}, 0).seed != seeds[0]

    def test_seed_is_the_same_on_every_machine(self, load):
        assert load(BASE).trial_config({}, 7).seed == 2926234328613741816

    def test_a_replicate_has_another_seed_only(self, load):
        space = load(BASE)
        configs = [space.trial_config({"method.b": 5}, 7, replicate) for replicate in range(3)]
        assert len({config.seed for config in configs}) == 3
        assert configs[0] == space.trial_config({"method.b": 5}, 7)
        assert len({config.model_copy(update={"seed": 0}).model_dump_json() for config in configs}) == 1

    def test_split_seed_is_the_study_seed_unless_given(self, load):
        assert load(BASE, seed=5).trial_config({}, 3).data.split_seed == 5
        assert load(BASE, ["data.split_seed=0"], seed=5).trial_config({}, 3).data.split_seed == 0


class TestParamsOf:
    SPACE = BASE + "  method.fractions: {choice: [[0.5, 1], [0.2, 1]]}\n"

    @pytest.fixture
    def fields(self):
        return {"method.b": 5.0, "training.lr": 1e-3, "training.optimizer": "adam", "method.fractions": [0.5, 1.0]}

    def test_are_written_as_the_space_does(self, load, fields):
        params = load(self.SPACE).variation.params_of(fields | {"training.momentum": 0.5, "method.prior": True})
        assert json.dumps(params["method.fractions"]) == "[0.5, 1]"
        assert params == {
            "method.b": 5,
            "method.fractions": [0.5, 1],
            "training.lr": 1e-3,
            "training.optimizer": "adam",
        }
        assert type(params["method.b"]) is int

    @pytest.mark.parametrize(
        "change",
        [
            {"method.b": 5.5},
            {"method.b": 9},
            {"method.fractions": [1.0]},
            {"training.optimizer": "sgd"},
            {"method.b": None},
        ],
    )
    def test_are_none_outside_the_space(self, load, fields, change):
        assert load(self.SPACE).variation.params_of(fields | change) is None


class TestStartSettings:
    def test_fills_in_defaults(self, load):
        space = load(BASE + "start_with: [{method.b: 4}]")
        assert space.start_settings() == [
            {"method.b": 4, "training.lr": 0.001, "training.optimizer": "sgd", "training.momentum": 0.9}
        ]

    def test_leaves_out_what_does_not_apply(self, load):
        space = load(BASE + "start_with: [{training.optimizer: adam}]")
        assert space.start_settings() == [{"method.b": 7, "training.lr": 0.001, "training.optimizer": "adam"}]

    def test_keeps_the_order_and_drops_repetitions(self, load):
        space = load(BASE + "start_with: [{method.b: 8}, {method.b: 3}, {method.b: 8, training.lr: 0.001}]")
        assert [setting["method.b"] for setting in space.start_settings()] == [8, 3]


class TestOverrides:
    def test_fixes_a_varied_field_also_in_start_settings(self, load):
        space = load(BASE + "start_with: [{method.b: 4}, {method.b: 5}]", ["method.b=6"])
        assert "method.b" not in space.variation.vary
        assert "method.b" not in space.start_settings()[0]
        assert len(space.start_settings()) == 1
        assert space.trial_config({}, 0).method.b == 6

    def test_drops_fields_whose_condition_it_makes_impossible(self, load):
        space = load(BASE + "start_with: [{training.momentum: 0.5}]", ["training.optimizer=adam"])
        assert set(space.variation.vary) == {"method.b", "training.lr"}
        assert set(space.start_settings()[0]) == {"method.b", "training.lr"}

    def test_leaves_out_start_settings_of_another_method(self, load):
        text = (
            "fixed: {model: {name: digits_cnn}, data: {name: digits}}\n"
            "vary:\n  method.name: {choice: [qat, pwfn]}\n"
            "  method.num_values: {int: [2, 64], when: {method.name: qat}}\n"
            "  method.b: {choice: [3, 4], when: {method.name: pwfn}}\n"
            "start_with: [{method.name: qat, method.num_values: 8}, {method.name: pwfn, method.b: 3}]"
        )
        assert load(text, ["method.name=pwfn"]).start_settings() == [{"method.b": 3}]
        assert load(text, ["method.name=qat"]).start_settings() == [{"method.num_values": 8}]

    def test_reads_values_as_yaml(self, load):
        space = load(BASE, ["training.clip_norm=", "training.weight_decay=1e-5", "method.fractions=[0.5, 1]"])
        config = space.trial_config({}, 0)
        assert config.training.clip_norm is None
        assert config.training.weight_decay == 1e-5
        assert config.method.fractions == (0.5, 1.0)

    def test_sets_the_search(self, load):
        search = load(BASE, ["search.sampler=gp", "search.max_concurrent=2"], seed=9, trials=3).search
        assert (search.sampler, search.max_concurrent, search.seed, search.trials) == ("gp", 2, 9, 3)

    @pytest.mark.parametrize(
        ("override", "expected"),
        [
            (
                "method.bb=3",
                f"--set method.bb is not a field of {METHODS}; did you mean method.b?",
            ),
            ("metod.b=3", "--set metod.b is not a field of TrialConfig; did you mean method.b?"),
            (
                "method.lr=3",
                f"--set method.lr is not a field of {METHODS}; did you mean baseline.lr, training.lr?",
            ),
            ("method=3", "--set method is a section, not a field; name one of its fields, such as method.name"),
            ("method.b", "--set method.b: write FIELD=VALUE, such as method.b=7"),
            ("method.b=30", "--set method.b is 30, but must be less than or equal to 20"),
            ("method.b='3'", "--set method.b is '3', but must be a valid integer"),
            ("method.zero_rule=yes", "--set method.zero_rule is 'yes', but must be a valid boolean"),
            ("training.lr=.nan", "--set training.lr is NaN, but must be a finite number"),
            ("training.lr=1e999", "--set training.lr is Infinity, but must be a finite number"),
            (
                "method.b=[3",
                "--set method.b=[3: not valid YAML at line 1, column 3: while parsing a flow sequence, "
                "expected ',' or ']', but got '<stream end>'",
            ),
            (
                "seed=3",
                "--set seed follows from the study's seed and the trial's number; set search.seed instead",
            ),
            (
                "search.samplr=gp",
                f"--set search.samplr is not a setting of the search ({', '.join(SearchConfig.model_fields)}); "
                "did you mean sampler?",
            ),
            (
                "search.sampler=nsga",
                f"--set search.sampler is 'nsga', but must be {SAMPLERS}; did you mean nsga3, nsga2?",
            ),
            (
                "method.sigma_join=mean_mu",
                "--set method.sigma_join: mean_mu, the research code's default, has no definition and gives NaN; "
                "use std_mu",
            ),
            (
                "resources.gpus_per_worker=1.5",
                "--set resources.gpus_per_worker: gpus_per_worker=1.5, but a worker uses one GPU: for 1.5 GPUs use "
                "gpus_per_worker=1 with workers=2",
            ),
        ],
    )
    def test_refuses(self, message, override, expected):
        assert message(BASE, [override]) == expected

    def test_refuses_no_trials(self, message):
        assert message(BASE, trials=0) == "--trials is 0, but must be greater than or equal to 1"


class TestYaml:
    def test_exponents_are_numbers_and_no_is_text(self, load):
        space = load("fixed: {data: {name: digits}, training: {lr: 1e-4, weight_decay: 1.E-3}, model: {name: no}}")
        assert space.trial_config({}, 0).training.lr == 1e-4
        assert space.trial_config({}, 0).model.name == "no"
        assert space.variation.fixed["training.weight_decay"] == 1e-3

    def test_merge_keys_take_over_what_an_anchor_has(self, load):
        space = load(
            "fixed: {data: {name: digits}, baseline: &adam {optimizer: adam, lr: 0.5}, training: {<<: *adam, lr: 0.1}}"
        )
        assert space.trial_config({}, 0).training.optimizer == "adam"
        assert space.trial_config({}, 0).training.lr == 0.1

    def test_dates_are_to_be_quoted(self, message):
        text = "fixed: {data: {name: digits}, model: {name: 2024-01-01}}"
        assert message(text) == "mine.yaml: 2024-01-01 is read as a date; put it in quotes if it is text"

    def test_a_leading_zero_is_decimal(self, load):
        assert load("fixed: {data: {name: digits}, method: {b: 010}}").trial_config({}, 0).method.b == 10

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                "fixed:\n  data: [1\n",
                "mine.yaml: not valid YAML at line 3, column 1: while parsing a flow sequence, expected ',",
            ),
            (
                "fixed: {}\nfixed: {}\n",
                "mine.yaml: not valid YAML at line 2, column 1: while constructing a map",
            ),
            ("vary:\n  1: {int: [1, 2]}", "mine.yaml: the key 1 is no text; put it in quotes"),
            (
                "fixed: !!python/tuple [1]",
                "at line 1, column 8: could not determine a constructor for the tag",
            ),
            ("fixed: !!int x", "mine.yaml: not valid YAML: invalid literal for int() with base 10: 'x'"),
            ("fixed: &a {b: *a}", "mine.yaml: nested too deeply, or something contains itself"),
            (
                "fixed: {}\n---\nvary: {}",
                "at line 2, column 1: expected a single document in the stream, but found another",
            ),
            ("a: \x00", "mine.yaml: not valid YAML: unacceptable character #x0000"),
            pytest.param("[" * 9999, "mine.yaml: nested too deeply", id="deep"),
            (
                "",
                "mine.yaml is empty, but must be a mapping with the keys fixed, vary, objectives, constraints, s",
            ),
            ("[1]", "mine.yaml is [1], but must be a mapping with the keys fixed"),
            ("vari: {}", "mine.yaml: vari is not a key of a search space"),
            ("vari: {}", "; did you mean vary?"),
            ("vary: [1]", "mine.yaml: vary is [1], but must be a mapping"),
            ("start_with: {a: 1}", 'mine.yaml: start_with is {"a": 1}, but must be a list'),
        ],
    )
    def test_refuses(self, message, text, expected):
        assert expected in message(text)

    def test_refuses_other_encodings(self, tmp_path):
        path = tmp_path / "latin.yaml"
        path.write_bytes("fixed: {model: {name: é}}".encode("latin-1"))
        with pytest.raises(UserError, match=r"latin\.yaml cannot be read: 'utf-8' codec"):
            SearchSpace.load(path)


class TestRefusals:
    @pytest.mark.parametrize(
        ("addition", "expected"),
        [
            (
                "method.bb: {int: [3, 8]}",
                f"mine.yaml: vary.method.bb is not a field of {METHODS}; did you mean",
            ),
            ("method: {int: [3, 8]}", "mine.yaml: vary.method is a section, not a field"),
            ("model.name: {choice: [a]}", "mine.yaml: vary.model.name is also under fixed; keep one of them"),
            ("resources.workers: {int: [1, 2]}", "vary.resources.workers cannot vary: all trials of a study occupy"),
            ("seed: {int: [1, 2]}", "vary.seed cannot vary: each trial's seed follows from search.seed"),
            ("data.split_seed: {int: [1, 2]}", "vary.data.split_seed cannot vary: all trials share one split"),
            ("method.prior: 3", "vary.method.prior is 3, but must be a domain such as {int: [3, 8]}"),
            ("method.prior: {chioce: [true]}", "vary.method.prior has 'chioce', but a domain is one of float, log_"),
            ("method.prior: {chioce: [true]}", "; did you mean choice?"),
            (
                "method.prior: {}",
                "vary.method.prior must have exactly one of float, log_float, int, log_int, choice, b",
            ),
            ("method.prior: {int: [1, 2], float: [1, 2]}", "but has int and float"),
            ("method.prior: {choice: true}", "vary.method.prior.choice is true, but must be a list with something"),
            ("method.prior: {choice: []}", "vary.method.prior.choice is [], but must be a list with something in it"),
            ("method.prior: {choice: [true, true]}", "vary.method.prior.choice has true twice"),
            ("method.prior: {choice: [true, 1]}", "vary.method.prior includes 1, but must be a valid boolean"),
            ("method.max_order: {int: [1]}", "vary.method.max_order.int is [1], but must be two whole numbers"),
            ("method.max_order: {int: [1.5, 3]}", "is [1.5, 3], but must be two whole numbers [low, high]"),
            ("method.max_order: {int: [true, 3]}", "is [true, 3], but must be two whole numbers [low, high]"),
            ("method.max_order: {int: [0, 3]}", "includes 0, but must be greater than or equal to 1"),
            ("method.max_order: {int: [3, 30]}", "vary.method.max_order includes 30, but must be less than or equal"),
            ("method.max_order: {float: [1, 3]}", "vary.method.max_order includes 1.0, but must be a valid integer"),
            ("method.start_sigma: {float: [2, 1]}", "low < high must hold, but got [2, 1]; one value belongs under"),
            ("method.start_sigma: {float: [1, .inf]}", "must be two numbers [low, high]"),
            ("method.start_sigma: {log_float: [0, 1]}", "low > 0 must hold for a logarithm, but got [0, 1]"),
            ("method.start_sigma: {float: [0, 1]}", "start_sigma includes 0.0, but must be greater than 0"),
            ("method.sigma_join: {choice: [std_mu, mean_mu]}", "vary.method.sigma_join: mean_mu, the research code's"),
            ("method.sigma_join: {choice: [std_nu]}", "vary.method.sigma_join includes 'std_nu', but must be 'std_mu'"),
            ("method.fractions: {choice: [[0.5, 0.4, 1]]}", "fractions must increase and end at 1.0, but got [0.5, 0"),
            ("model.pretrained: {choice: [false, true]}\n  model.checkpoint: {choice: [a]}", "two sources of weights"),
            ("method.prior: {choice: [true], when: 3}", "vary.method.prior.when is 3, but must be a mapping such as"),
            ("method.prior: {choice: [true], when: {method.b: []}}", "when.method.b is an empty list, so it would"),
            ("method.prior: {choice: [true], when: {method.c: 3}}", "vary.method.prior.when.method.c is not a field"),
            ("method.prior: {choice: [true], when: {method.b: 9}}", "vary.method.prior.when: method.b is never 9"),
            ("method.prior: {choice: [true], when: {model.name: x}}", "when: model.name is never 'x'"),
            (
                "method.max_order: {int: [1, 4], when: {training.optimizer: sgd}}\n"
                "  method.prior: {choice: [true], when: {training.optimizer: adam, method.max_order: 3}}",
                "vary.method.prior.when can never hold: one of true when training.optimizer is 'adam' and",
            ),
            (
                "method.prior: {choice: [true], when: {training.lr: 0.001}}",
                "vary.method.prior.when: training.lr varies as log_float 0.0001 to 0.01, which is as good as never "
                "exactly 0.001; a condition needs a choice or whole numbers",
            ),
            (
                "method.prior: {choice: [true], when: {method.noise: true}}\n"
                "  method.noise: {choice: [true], when: {method.prior: true}}",
                "mine.yaml: under vary, conditions go in a circle: method.noise, method.prior",
            ),
        ],
    )
    def test_under_vary(self, message, addition, expected):
        assert expected in message(f"{BASE}  {addition}\n")

    @pytest.mark.parametrize(
        ("fixed", "expected"),
        [
            ("{}", "mine.yaml: fixed.data is missing"),
            ("{data: {name: digits, rot: x}}", "mine.yaml: fixed.data.rot is not a field of DataConfig; did you mean"),
            ("{data: {name: digitz}}", "mine.yaml: fixed.data.name is 'digitz', but must be 'digits', 'parquet'"),
            ("{data: {name: digitz}}", "; did you mean digits?"),
            ("{data: {}}", "mine.yaml: fixed.data is missing"),
            ("{data: {name: parquet}}", "fixed.data: root is missing: data.name=parquet reads a folder"),
            ("{data: digits}", "mine.yaml: fixed.data is 'digits', but must be a mapping of its fields"),
            ("{datta: {name: digits}}", "mine.yaml: fixed.datta is not a field of TrialConfig; did you mean data?"),
            ("{data.name: digits}", "mine.yaml: fixed.data.name: fields are nested here, `data: {name: 'digits'}`"),
            ("{data: {name: digits}, seed: 3}", "mine.yaml: fixed.seed follows from the study's seed and the trial's"),
            (
                "{data: {name: digits}, method: {fractions: [0.5, '1']}}",
                "fixed.method.fractions is '1', but must be a valid number",
            ),
            (
                "{data: {name: digits}, resources: {custom: {a100: 0}}}",
                "mine.yaml: fixed.resources.custom is 0, but must be greater than 0",
            ),
        ],
    )
    def test_under_fixed(self, message, fixed, expected):
        assert expected in message(f"fixed: {fixed}")

    @pytest.mark.parametrize(
        ("objectives", "expected"),
        [
            ("{test_top1: maximize}", "objectives.test_top1 is refused: the search never sees test data; use val_top1"),
            ("{unique_value: minimize}", "; did you mean unique_values"),
            ("{val_top1: max}", "mine.yaml: objectives.val_top1 is 'max', but must be 'maximize' or 'minimize'; did"),
            ("{val_top1: true}", "objectives.val_top1 is true, but must be 'maximize' or 'minimize'"),
        ],
    )
    def test_under_objectives(self, message, objectives, expected):
        assert expected in message(f"{BASE}objectives: {objectives}")

    @pytest.mark.parametrize(
        ("constraints", "expected"),
        [
            ("{test_top1: {min: 0.9}}", "mine.yaml: constraints.test_top1 is refused: the search never sees test data"),
            ("{unique_value: {max: 64}}", "; did you mean unique_values"),
            ("{val_top1: 0.9}", "constraints.val_top1 is 0.9, but must be bounds such as {min: 0.9}"),
            ("{val_top1: {}}", "constraints.val_top1 is {}, but must be bounds such as {min: 0.9}"),
            ("{val_top1: {least: 0.9}}", "constraints.val_top1.least is not a bound (min, max, max_drop)"),
            ("{val_top1: {mni: 0.9}}", "; did you mean min"),
            ("{val_top1: {min: high}}", "constraints.val_top1.min is 'high', but must be a number"),
            ("{val_top1: {min: true}}", "constraints.val_top1.min is true, but must be a number"),
            ("{val_top1: {min: 90}}", "constraints.val_top1.min is 90, but val_top1 is a fraction in [0, 1]: 0.9 is"),
            ("{val_top1: {max_drop: 1}}", "constraints.val_top1.max_drop is 1, but must be in [0, 1): 0.01 is one"),
            ("{val_top1: {max_drop: -0.01}}", "constraints.val_top1.max_drop is -0.01, but must be in [0, 1): 0.01"),
            ("{val_top5: {max_drop: 0.1}}", "constraints.val_top5.max_drop: of the float network only val_top1 is"),
            ("{unique_values: {min: 9, max: 8}}", "constraints.unique_values: min <= max must hold, but got"),
            ("[val_top1]", 'mine.yaml: constraints is ["val_top1"], but must be a mapping'),
        ],
    )
    def test_under_constraints(self, message, constraints, expected):
        assert expected in message(f"{BASE}constraints: {constraints}")

    @pytest.mark.parametrize(
        ("search", "expected"),
        [
            ("{batch: 0}", "mine.yaml: search.batch is 0, but must be greater than or equal to 1"),
            ("{sampler: tpee}", f"mine.yaml: search.sampler is 'tpee', but must be {SAMPLERS}"),
            ("{trails: 3}", "mine.yaml: search.trails is not a setting of the search (sampler, trials, seed, max_con"),
            ("{trials: '3'}", "mine.yaml: search.trials is '3', but must be a valid integer"),
            ("{max_concurrent: 0}", "mine.yaml: search.max_concurrent is 0, but must be greater than or equal to 1"),
        ],
    )
    def test_under_search(self, message, search, expected):
        assert expected in message(f"{BASE}search: {search}")

    @pytest.mark.parametrize(
        ("setting", "expected"),
        [
            ("3", "mine.yaml: start_with[0] is 3, but must be a mapping such as {method.b: 7}"),
            (
                "{method.c: 3}",
                f"mine.yaml: start_with[0].method.c is not a field of {METHODS}",
            ),
            ("{method.prior: true}", "start_with[0].method.prior is not varied; a setting names varied fields (method"),
            ("{method.b: 9}", "mine.yaml: start_with[0].method.b is 9, but varies over int 3 to 8"),
            ("{method.b: 4.0}", "mine.yaml: start_with[0].method.b is 4.0, but varies over int 3 to 8"),
            (
                "{training.optimizer: adam, training.momentum: 0.5}",
                "start_with[0].training.momentum does not apply here: it varies as float 0.0 to 0.95 when training.",
            ),
        ],
    )
    def test_under_start_with(self, message, setting, expected):
        assert expected in message(f"{BASE}start_with: [{setting}]")

    def test_a_default_outside_its_domain(self, message):
        text = BASE.replace("[3, 8]", "[3, 6]") + "start_with: [{}]"
        expected = "start_with[0] leaves out method.b, whose default 7 is outside its domain: int 3 to 6"
        assert message(text) == f"mine.yaml: {expected}"

    def test_an_unknown_space(self):
        with pytest.raises(
            UserError, match=r"no search space 'digts': .* one of cct_cifar10, cifar10, deit.*; did you mean digits\?"
        ):
            SearchSpace.load("digts")


class TestResolved:
    def test_rebuilds_the_space(self, load):
        text = BASE + "start_with: [{method.b: 4}]\nsearch: {sampler: nsga3}\nobjectives: {sparsity: maximize}"
        text += "\nconstraints: {val_top1: {max_drop: 0.01}, unique_values: {min: 4, max: 64}}"
        space = load(text, ["training.clip_norm=null", "method.sigma_scale=0.01"], seed=4, trials=9)
        rebuilt = SearchSpace.from_resolved(space.resolved())
        assert rebuilt == space
        assert rebuilt.trial_config({"method.b": 3}, 2) == space.trial_config({"method.b": 3}, 2)
        assert rebuilt.search.trials == 9
        assert rebuilt != load(text, seed=4, trials=9)

    def test_the_order_of_lines_means_nothing(self, load):
        lines = BASE.strip("\n").splitlines()
        reordered = load("\n".join(lines[:4] + lines[:3:-1]))
        assert list(reordered.variation.vary) == list(load(BASE).variation.vary)
        assert list(reordered.variation.vary)[-2:] == ["training.optimizer", "training.momentum"]


def test_batches_must_divide_among_the_workers(load):
    expected = "mine.yaml: baseline.batch_size=128 is for all workers together and must be a multiple of"
    with pytest.raises(UserError, match=expected):
        load(BASE, ["resources.workers=3"])


class TestConstraints:
    CONSTRAINTS = "constraints: {val_top1: {min: 0.8, max_drop: 0.01}, unique_values: {max: 50}, sparsity: {min: 0}}"

    @pytest.mark.parametrize(
        ("metrics", "expected"),
        [
            ({}, 0.0),
            ({"val_top1": 0.975}, 0.0),  # exactly: 0.985 - 0.01 in floating point is a little more
            ({"val_top1": 0.78}, 0.02 / 0.8 + 0.195 / 0.975),
            ({"unique_values": 75}, 0.5),
            ({"val_top1": 0.9, "unique_values": 60}, 0.2 + 0.075 / 0.975),
            ({"sparsity": -0.25}, 0.25),  # of a bound at 0 the difference
            ({"float_val_top1": None}, float("inf")),
            ({"unique_values": float("nan")}, float("inf")),
        ],
    )
    def test_violations_are_shares_of_the_bounds(self, load, metrics, expected):
        kept = {"val_top1": 0.98, "unique_values": 50, "sparsity": 0, "float_val_top1": 0.985}
        space = load(BASE + self.CONSTRAINTS)
        assert total_violation(space.constraints, kept | metrics) == pytest.approx(expected, abs=1e-9)
        assert (total_violation(space.constraints, kept | metrics) == 0) == (expected == 0)

    def test_each_says_what_it_needs(self, load):
        space = load(BASE + self.CONSTRAINTS)
        assert space.told_metrics == ("val_top1", "unique_values", "float_val_top1", "sparsity")
        assert [str(each) for each in space.constraints] == [
            "at least 0.8",
            "below the float network's by at most 0.01",
            "at most 50",
            "at least 0",
        ]
        assert load(BASE).told_metrics == ("val_top1", "unique_values")

    def test_a_space_without_any_is_as_before(self, load):
        assert "constraints" not in load(BASE).resolved()
        assert total_violation(load(BASE).constraints, {}) == 0


def test_plan_shows_every_part(load):
    text = BASE + "start_with: [{method.b: 4}]\nconstraints: {val_top1: {max_drop: 0.01}}\nsearch: {batch: 4}"
    rows = load(text, ["resources.workers=2"]).plan()
    for expected in (
        ("search", "sampler", "tpe"),
        ("search", "batch", "4"),
        ("objective", "unique_values", "minimize"),
        ("constraint", "val_top1", "below the float network's by at most 0.01"),
        ("resources per trial", "workers", "2"),
        ("fixed", "model.name", "digits_cnn"),
        ("varied", "method.b", "int 3 to 8"),
        ("varied", "training.momentum", "float 0.0 to 0.95 when training.optimizer is 'sgd'"),
        ("starts with", "0", "method.b=4, training.lr=0.001, training.optimizer='sgd', training.momentum=0.9"),
    ):
        assert expected in rows


def test_loading_imports_neither_torch_nor_ray_nor_optuna():
    code = """
import sys
from pwfn.space.space import SearchSpace
SearchSpace.load("digits").plan()
print([name for name in ("torch", "ray", "optuna", "timm", "numpy") if name in sys.modules])
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_metric_is_a_column_of_a_trial():
    assert set(SEARCHABLE) <= set(TRIALS.names)


PAPERS = {
    "pwfn": {
        "method.b": 7,
        "method.regularization_strength": 2**-11,
        "method.start_sigma": 1,
        "method.end_sigma": 1,
        "method.sigma_join": "std_mu",
        "training.lr": 0.001,
    },
    "wfn": {
        "method.delta": 0.01,
        "method.zero_distance": 2**-7,
        "method.regularization_ratio": 0.4,
        "method.include_norm": True,
        "training.lr": 0.00002,
    },
}
"""The papers' settings for ImageNet; a shipped space starts with its method's, and varies all numbers of it."""
OTHERWISE = {"extended_cifar10", "wfn_cifar10"}
"""Spaces that say why they start with something else."""


class TestShipped:
    PATHS = sorted(SHIPPED.glob("*.yaml"))

    def test_there_are_some(self):
        assert {"digits", "cifar10", "resnet", "deit"} <= {path.stem for path in self.PATHS}

    @pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
    def test_loads_and_starts_with_the_paper(self, path):
        space = SearchSpace.load(path.name)
        config = space.trial_config(space.start_settings()[0], 0)
        # Methods without training have no one setting.
        paper = {} if path.stem in OTHERWISE else PAPERS.get(config.method.name, {})
        found = {"training.lr": config.training.lr} | {f"method.{k}": v for k, v in dict(config.method).items()}
        assert {name: found[name] for name in paper} == paper
        assert {name for name, value in paper.items() if not isinstance(value, str)} <= set(space.variation.vary)
        assert space.plan()

    @pytest.mark.parametrize(
        ("name", "network"), [("deit", "deit_tiny_patch16_224"), ("resnet", "resnet18")], ids=["deit", "resnet"]
    )
    def test_the_first_trial_on_imagenet_is_the_published_command(self, name, network):
        """Flag by flag, as pwfn/README.md maps them; only the precision is another."""
        space = SearchSpace.load(name)
        config = space.trial_config(space.start_settings()[0], 0)
        training, method = config.training, config.method
        assert (config.model.name, config.model.pretrained) == (network, True)
        assert (training.optimizer, training.lr, training.lr_schedule) == ("sgd", 0.001, "constant")
        assert (training.momentum, training.weight_decay, training.clip_norm) == (0.9, 1e-4, 1.0)
        assert (training.batch_size, training.steps_per_epoch) == (128, None)
        assert (training.start_epochs, training.start_fraction, training.rest_epochs) == (1, 0.05, 3)
        assert (method.regularization, method.regularization_strength) == ("linear", 0.00048828125)
        assert (method.start_sigma, method.end_sigma, method.radius_growth, method.b) == (1, 1, 2, 7)
        assert (method.sigma_join, method.prior, method.zero_rule) == ("std_mu", True, True)
        assert (method.alternate, method.noise_epochs, method.fixed_sigma_first) == (False, 0, False)
        assert method.fractions == (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 1.0)
        assert (training.precision, training.tf32, config.resources.workers) == ("bfloat16", True, 1)

    @pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
    def test_header_has_the_command(self, path):
        header = path.read_text().split("\n\n")[0]
        assert f"python launchers/search.py --space {path.name}" in header
        assert "# Cost" in header
        assert "# Expect" in header


class Toy(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Coarse(Toy):
    name: Literal["coarse"] = "coarse"
    b: Annotated[int, Field(ge=1, le=9)] = 7


class Fine(Toy):
    name: Literal["fine"] = "fine"
    b: Annotated[int, Field(ge=1, le=30)] = 9
    delta: Annotated[float, Field(gt=0)] = 0.01


class ToyData(Toy):
    split_seed: int | None = None


class ToyTrial(Toy):
    data: ToyData = ToyData()
    method: Annotated[Coarse | Fine, Field(discriminator="name")] = Coarse()
    resources: ResourcesConfig = ResourcesConfig()
    seed: int = 0


class TestSeveralMethods:
    """Methods are told apart by their name, as the members of a union."""

    def read(self, text, **overrides):
        named = {name.replace("__", "."): Override(f"--set {name}", value) for name, value in overrides.items()}
        return SearchSpace.read("toy", YAML(typ="safe").load(text), Origin("toy.yaml", named), Fields(ToyTrial))

    VARIED = """
fixed: {method: {delta: 0.02}}
vary:
  method.name: {choice: [coarse, fine]}
  method.b: {int: [3, 8]}
"""

    def test_a_fixed_field_goes_to_the_methods_that_have_it(self):
        space = self.read(self.VARIED)
        assert space.trial_config({"method.name": "fine", "method.b": 3}, 0).method == Fine(b=3, delta=0.02)
        assert space.trial_config({"method.name": "coarse", "method.b": 3}, 0).method == Coarse(b=3)

    def test_a_condition_lets_a_field_of_one_method_vary(self):
        delta = "method.delta: {float: [0.1, 1], when: {method.name: fine}}"
        space = self.read(f"vary: {{method.name: {{choice: [coarse, fine]}}, {delta}}}")
        assert space.variation.example({"method.name": "coarse"}) == {"method.name": "coarse"}
        assert space.variation.example({"method.name": "fine"}) == {"method.name": "fine", "method.delta": 0.1}

    def test_bounds_are_those_of_each_method_that_is_selected(self):
        assert self.read("{fixed: {method: {name: fine}}, vary: {method.b: {int: [3, 20]}}}")
        with pytest.raises(UserError, match=r"vary\.method\.b includes 20, but must be less than or equal to 9"):
            self.read("{fixed: {method: {name: coarse}}, vary: {method.b: {int: [3, 20]}}}")
        with pytest.raises(UserError, match=r"vary\.method\.b includes 20, but must be less than or equal to 9"):
            self.read(self.VARIED.replace("[3, 8]", "[3, 20]"))

    def test_defaults_are_those_of_the_selected_method(self):
        space = self.read("{fixed: {method: {name: fine}}, vary: {method.b: {int: [3, 20]}}, start_with: [{}]}")
        assert space.start_settings() == [{"method.b": 9}]

    def test_a_method_need_not_be_named(self):
        space = self.read("vary: {method.b: {int: [3, 8]}}")
        assert space.trial_config({"method.b": 4}, 0).method == Coarse(b=4)
        assert self.read("fixed: {method: {b: 3}}").trial_config({}, 0).method == Coarse(b=3)

    def test_an_override_of_the_method_drops_what_other_methods_have(self):
        text = self.VARIED + "  method.delta: {float: [0.1, 1], when: {method.name: fine}}\n"
        space = self.read(text.replace("fixed: {method: {delta: 0.02}}", ""), method__name="coarse")
        assert set(space.variation.vary) == {"method.b"}
        assert self.read(self.VARIED, method__name="coarse").variation.fixed == {"method.name": "coarse"}

    def test_the_command_line_cannot_set_a_field_of_a_method_that_it_excludes(self):
        with pytest.raises(UserError, match=r"delta is a field of Fine, but method\.name selects Coarse$"):
            self.read(self.VARIED, method__name="coarse", method__delta=0.1)
        space = self.read(self.VARIED, method__name="fine", method__delta=0.1)
        assert space.trial_config({"method.b": 3}, 0).method == Fine(b=3, delta=0.1)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                "vary: {method.name: {choice: [coarse, fine]}, method.delta: {float: [0.1, 1]}}",
                "toy.yaml: vary.method.delta is a field of Fine, but method.name selects Coarse; add `when: ",
            ),
            (
                "{fixed: {method: {name: coarse}}, vary: {method.delta: {float: [0.1, 1]}}}",
                "toy.yaml: vary.method.delta is a field of Fine, but method.name selects Coarse",
            ),
            (
                "{fixed: {method: {delta: 0.1}}}",
                "toy.yaml: fixed.method.delta is a field of Fine, but method.name selects Coarse",
            ),
            (
                "{fixed: {method: {name: corse}}}",
                "fixed.method.name: 'corse' is none of 'coarse', 'fine'; did you mean",
            ),
            ("{vary: {method.name: {choice: [fine, x]}}}", "vary.method.name: 'x' is none of 'coarse', 'fine'"),
            ("{vary: {method.name: {choice: [[fine]]}}}", "vary.method.name: \"['fine']\" is none of"),
            ("{fixed: {method: {bb: 3}}}", "fixed.method.bb is not a field of Coarse or Fine; did you mean method.b?"),
        ],
    )
    def test_refuses(self, text, expected):
        with pytest.raises(UserError) as caught:
            self.read(text)
        assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "search.pruning={grace_round: 2}",
            r"--set search\.pruning\.grace_round is not a setting of pruning \(grace_rounds, reduction_factor\); "
            r"did you mean grace_rounds\?",
        ),
        ("search.pruning={grace_rounds: 0}", r"--set search\.pruning\.grace_rounds is 0, but must be greater than or"),
        ("search.pruning={reduction_factor: 1}", r"--set search\.pruning\.reduction_factor is 1.*greater than 1"),
        ("search.hours=0", r"--set search\.hours is 0, but must be greater than 0"),
        ("search.trial_minutes=soon", r"--set search\.trial_minutes is 'soon', but must be a valid number"),
    ],
)
def test_limits_of_a_search_that_make_no_sense_are_refused(override, message):
    with pytest.raises(UserError, match=message):
        SearchSpace.load("digits", [override])


def test_pruning_by_a_metric_that_no_round_has_is_refused(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("fixed: {data: {name: digits}}\nobjectives: {val_top1: maximize, size_bytes: minimize}\n")
    assert SearchSpace.load(path).search.pruning is None
    with pytest.raises(UserError, match=r"search\.pruning: size_bytes is known only when a trial has ended; judge by"):
        SearchSpace.load(path, ["search.pruning={}"])


def test_constraints_and_settings_inside_are_set_on_the_command_line(load):
    space = load(
        f"{BASE}constraints: {{val_top1: {{min: 0.5}}, entropy_bits: {{max: 3}}}}\n",
        ["constraints.val_top1.max_drop=0.02", "constraints.unique_values={max: 64}", "constraints.entropy_bits=null",
         "search.pruning.grace_rounds=2"],
    )  # fmt: skip
    assert space.resolved()["constraints"] == {"val_top1": {"min": 0.5, "max_drop": 0.02}, "unique_values": {"max": 64}}
    assert space.search.pruning is not None
    assert (space.search.pruning.grace_rounds, space.search.pruning.reduction_factor) == (2, 2)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["constraints.val_top1.mim=0.9"], "--set constraints.val_top1.mim is not a bound (min, max, max_drop)"),
        (["constraints.val_top1.min=90"], "--set constraints.val_top1.min is 90, but val_top1 is a fraction"),
        (["constraints.accuracy={min: 0.9}"], "--set constraints.accuracy is not a metric"),
        (["search.pruning.grace=2"], "--set search.pruning.grace is not a setting of pruning"),
        (["search.pruning.grace_rounds=0"], "--set search.pruning.grace_rounds is 0, but must be greater than"),
        (["search.sampler.name=tpe"], "search.sampler"),
        (["method.b=4", "method.b=5"], "--set method.b is given twice, as 4 (--set method.b) and 5; keep one of them"),
        (["method.b=4", "method.b=4"], "--set method.b is given twice"),
    ],
)
def test_what_the_command_line_cannot_set(load, overrides, expected):
    with pytest.raises(UserError) as caught:
        load(BASE, overrides)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_option_and_a_field_that_mean_the_same_are_not_both_given(load):
    with pytest.raises(UserError, match=r"--seed is given twice, as 3 \(--set search.seed\) and 4; keep one"):
        load(BASE, ["search.seed=3"], seed=4)
