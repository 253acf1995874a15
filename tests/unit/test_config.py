"""Settings go to plain types and back, and whatever is wrong with one is said in one line that names it."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maag.cli.resolving import parse_changes
from maag.cli.train import train_command
from maag.config import codec
from maag.config.presets import PRESETS
from maag.config.schema import Config
from maag.data.catalog import READERS, preset
from maag.errors import ConfigError

LEAVES = {leaf.path: leaf for leaf in codec.leaves(Config())}
LIMITS = re.compile(r"(>=|<=|>|<) (\S+)")

# Where the type alone does not say what is valid together with any value of the others.
NARROWER: dict[str, st.SearchStrategy[Any]] = {
    "data.classes": st.lists(st.text(), min_size=2, max_size=4, unique=True),
    "data.dataset": st.sampled_from(list(READERS)),
    "data.unlabelled_value": st.none() | st.integers(9, 255),
    "data.size_px": st.lists(st.integers(1, 40).map(lambda side: 16 * side), min_size=2, max_size=2),
    "data.val_fraction": st.floats(0.01, 0.49),
    "data.test_fraction": st.floats(0, 0.49),
    "segmentor.residual_blocks": st.lists(st.integers(0, 9), min_size=4, max_size=4),
    "gates.levels": st.lists(st.integers(0, 3), unique=True),
    "discriminator.scales": st.permutations([0, 1, 2, 3]).map(lambda scales: scales[: scales.index(0) + 1]),
    "loss.supervised": st.floats(0.01, 9),
    "loss.dense": st.floats(0.01, 9),
    "loss.adversarial_unlabelled": st.floats(0.01, 9),
    "teacher.decay": st.floats(0.01, 0.99),
    "optim.lr": st.floats(1e-4, 9),
    "optim.lr_min": st.floats(0, 1e-4),
    "optim.batch_size": st.integers(2, 99),
}


def values(leaf: codec.Setting) -> st.SearchStrategy[Any]:
    """Valid values of a setting by its type in words."""
    if leaf.path in NARROWER:
        return NARROWER[leaf.path]
    if leaf.type == "boolean":
        return st.booleans()
    if leaf.type == "list of number >= 0":
        return st.lists(st.floats(0, 1e9), max_size=3)
    kind, *_ = leaf.type.split()
    limits = {sign: float(number) for sign, number in LIMITS.findall(leaf.type)}
    if kind == "integer":
        return st.integers(int(limits.get(">=", -(10**9))), int(limits.get("<=", 10**9)))
    if kind == "number":
        return st.floats(
            limits.get(">=", limits.get(">")),
            limits.get("<=", limits.get("<", 1e9)),
            exclude_min=">" in limits,
            exclude_max="<" in limits,
        )
    return st.sampled_from(leaf.type.split(" | "))


def with_a_teacher(changes: dict[str, Any]) -> dict[str, Any]:
    """A lesson needs one who gives it."""
    return {"teacher.decay": 0.5, **changes} if changes.get("loss.teacher") else changes


CHANGES = st.fixed_dictionaries({}, optional={path: values(leaf) for path, leaf in LEAVES.items()}).map(with_a_teacher)


def complaint(changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        codec.override(Config(), changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(deadline=None)
@given(CHANGES)
def test_any_configuration_survives_a_round_trip(changes: dict[str, Any]) -> None:
    config = codec.override(Config(), changes)
    written = {leaf.path: leaf.value for leaf in codec.leaves(config)}
    assert written == {path: changes.get(path, leaf.value) for path, leaf in LEAVES.items()}
    for back in (
        codec.from_dict(json.loads(json.dumps(codec.to_dict(config)))),
        codec.from_document(json.loads(json.dumps(codec.document(config))), "config.json"),
        codec.override(Config(), {path: json.dumps(value) for path, value in changes.items()}),
    ):
        assert back == config
        assert codec.digest(back) == codec.digest(config)


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=lambda leaf: leaf.path)
def test_any_change_changes_the_digest(leaf: codec.Setting) -> None:
    base = codec.override(Config(), {"teacher.decay": 0.5} if leaf.path == "loss.teacher" else {})

    @settings(max_examples=3, deadline=None)
    @given(values(leaf).filter(lambda value: value != leaf.value))
    def check(value: Any) -> None:
        assert codec.digest(codec.override(base, {leaf.path: value})) != codec.digest(base)

    check()


@pytest.mark.parametrize("path", LEAVES)
def test_a_wrong_type_is_named(path: str) -> None:
    assert complaint({path: {"a": "b\nc"}}).startswith(f"{path}: expected ")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (size, f"data.size_px: expected a list of 2 whole numbers, such as 'data.size_px=[224,224]', got {got}")
        for size, got in {
            "data.size_px=64": "64",
            "data.size_px=64,64": '"64,64"',
            "data.size_px=[64,64": '"[64,64"',
            "data.size_px=[64]": "[64]",
            "data.size_px=[16,16,16]": "[16, 16, 16]",
            'data.size_px=["a","b"]': '"a" as item 1',
            "data.size_px=[64,true]": "true as item 2",
        }.items()
    ]
    + [
        (
            'data.classes=["a"]',
            "data.classes: expected a list of 2 or more names, such as "
            """'data.classes=["background","RV","MYO","LV"]', got ["a"]""",
        ),
        ("optim.lr=True", 'optim.lr: expected a number, such as optim.lr=0.0001, got "True"'),
        ("optim.lr=", 'optim.lr: expected a number, such as optim.lr=0.0001, got ""'),
        ("optim.epochs=true", "optim.epochs: expected a whole number, such as optim.epochs=450, got true"),
        ("optim.epochs=1.5", "optim.epochs: expected a whole number, such as optim.epochs=450, got 1.5"),
        (
            "data.unlabelled_value=false",
            "data.unlabelled_value: expected a whole number or null, such as data.unlabelled_value=4, got false",
        ),
        (
            "data.rater_weights=[1,true]",
            "data.rater_weights: expected a list of numbers, such as 'data.rater_weights=[1,0.5]', got true as item 2",
        ),
        ("train.compile=2", "train.compile: expected true or false, such as train.compile=false, got 2"),
        (
            "data.raters=all",
            'data.raters: expected one of union, majority, weighted, such as data.raters=union, got "all"',
        ),
    ],
)
def test_a_wrong_type_is_said_without_python_and_with_an_example_to_paste(change: str, sentence: str) -> None:
    assert complaint(parse_changes([change])) == sentence
    ((path, example),) = parse_changes(shlex.split(sentence.partition("such as ")[2].rpartition(", got ")[0])).items()
    codec.override(Config(), {path: example})


@pytest.mark.parametrize("change", ["=1", " =1", "optim.lr"])
def test_a_change_without_a_name_or_a_value_says_how_one_looks(change: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set .*: expected section\.key=value, as in --set optim\.lr=3e-4$"):
        parse_changes([change])


def test_fractions_that_leave_nobody_to_train_are_said() -> None:
    assert complaint({"data.val_fraction": 0.5, "data.test_fraction": 0.6}).startswith(
        "data.val_fraction=0.5 and data.test_fraction=0.6 leave no patients to train on; together they must be below 1"
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (leaf.path, float(number) + {"<": 0, "<=": 1, ">": 0, ">=": -1}[sign])
        for leaf in LEAVES.values()
        for sign, number in LIMITS.findall(leaf.type)
        if not leaf.type.startswith("list")
    ],
)
def test_a_value_out_of_its_limits_is_named(path: str, value: float) -> None:
    assert re.fullmatch(rf"{path}: input should be (greater|less) than .*, got {value}", complaint({path: value}))


@pytest.mark.parametrize("path", ["train.seed", "data.split_seed", "data.scribble_seed", "optim.epochs"])
def test_a_number_that_would_overflow_is_named(path: str) -> None:
    assert complaint({path: 10**23}).startswith(f"{path}: input should be less than or equal to 10")


def test_the_lowest_level_needs_two_values_to_normalise() -> None:
    small = {"optim.batch_size": 1, "data.size_px": [16, 16]}
    assert "optim.batch_size=1 with data.size_px=[16, 16] leaves one value for each channel" in complaint(small)
    assert codec.override(Config(), {**small, "optim.batch_size": 2}).optim.batch_size == 2
    assert codec.override(Config(), {**small, "data.size_px": [16, 32]}).optim.batch_size == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "NaN", "1e999"])
def test_a_number_is_finite(value: Any) -> None:
    assert complaint({"train.checkpoint_minutes": value}).startswith("train.checkpoint_minutes: input should be a fin")


@pytest.mark.parametrize("path", ["segmentor.residual_blocks", "gates.levels", "discriminator.scales", "data.size_px"])
def test_a_wrong_item_of_a_list_is_named(path: str) -> None:
    assert complaint({path: [0, -1]}).startswith(f"{path}.")


@pytest.mark.parametrize("blocks", [[], [1, 2, 2], [1, 2, 2, 2, 2]])
def test_residual_blocks_are_said_for_each_level(blocks: list[int]) -> None:
    assert complaint({"segmentor.residual_blocks": blocks}) == (
        f"segmentor.residual_blocks: each of the 4 encoder levels needs its number, such as [1, 2, 2, 2], got {blocks}"
    )


@pytest.mark.parametrize(("said", "power"), [("true", 1.0), ("false", 0.0), ("0.5", 0.5)])
def test_class_weights_are_there_or_not_or_between(said: str, power: float) -> None:
    assert codec.override(Config(), {"loss.class_weights": said}).loss.class_weights == power


@given(st.text("abcdefgh_.", min_size=1))
def test_an_unknown_setting_is_named(path: str) -> None:
    said = complaint({path: 1})
    assert said.startswith(f"{path}: no such setting; ")
    assert said.endswith("`maag config show` lists them all")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("optim.lrr", "optim.lr"),
        ("train.epochs", "optim.epochs"),
        ("epochs", "optim.epochs"),
        ("los.areas", "loss.areas"),
    ],
)
def test_the_setting_that_was_meant_is_asked_for(path: str, meant: str) -> None:
    assert complaint({path: 1}) == f"{path}: no such setting; is {meant} meant? `maag config show` lists them all"


@pytest.mark.parametrize("path", ["x.zzzz", "data.x", "nonsense", "optim2"])
def test_what_is_like_no_setting_is_not_guessed(path: str) -> None:
    assert complaint({path: 1}) == f"{path}: no such setting; `maag config show` lists them all"


@pytest.mark.parametrize("plain", [{"optim": {"nonsense": 1}}, {"nonsense": {}}])
def test_an_unknown_key_of_a_file_is_named(plain: dict[str, Any]) -> None:
    path = "optim.nonsense" if "optim" in plain else "nonsense"
    with pytest.raises(ConfigError) as caught:
        codec.from_document(plain, "config.json")
    assert str(caught.value).startswith(f"config.json: {path}: no such setting")


@pytest.mark.parametrize("plain", [[], None, "text", {"format_version": 2}, {"optim": 3}, {"optim": None}])
def test_a_file_that_is_no_configuration_is_named(plain: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json: .*(JSON object|format_version 2 is unkn|optim: expected)"):
        codec.from_document(plain, "config.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"data.supervision": "semi", "loss.adversarial_unlabelled": 0},
        {"data.supervision": "mixed", "optim.batch_size": 1},
    ],
)
def test_a_rule_across_sections_names_its_setting(changes: dict[str, Any]) -> None:
    assert complaint(changes).startswith(f"data.supervision={changes['data.supervision']} needs ")


@pytest.mark.parametrize(
    ("supervision", "weights"),
    [
        ("weak", ["loss.supervised"]),
        ("semi", ["loss.supervised"]),
        ("dense", ["loss.dense"]),
        ("mixed", ["loss.supervised", "loss.dense"]),
    ],
)
def test_a_balance_with_a_loss_that_weighs_nothing_is_refused(supervision: str, weights: list[str]) -> None:
    nothing = {"data.supervision": supervision, **dict.fromkeys(weights, 0)}
    said = complaint(nothing)
    assert said.startswith(f"{' and '.join(f'{name}=0' for name in weights)} with loss.dynamic_balance=true would turn")
    alone = {"loss.adversarial": 0, "loss.adversarial_unlabelled": 0, "loss.teacher": 1, "teacher.decay": 0.9}
    for way_out in ({weights[0]: 1}, {"loss.dynamic_balance": False}, alone):
        assert codec.override(Config(), {**nothing, **way_out}).data.supervision == supervision
    # What nothing is supervised by may weigh nothing.
    other = {"loss.supervised", "loss.dense"} - {*weights}
    assert codec.override(Config(), {"data.supervision": supervision, **dict.fromkeys(other, 0)})


def test_classes_that_could_not_be_told_apart_are_refused() -> None:
    assert complaint({"data.classes": ["background", "a", "a"]}).startswith("data.classes: each name may stand once")


@pytest.mark.parametrize("dataset", READERS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_for_every_data_set(dataset: str, name: str) -> None:
    config = preset(dataset, name)
    assert config.data.dataset == dataset
    assert codec.from_dict(codec.to_dict(config)) == config


def test_a_data_set_has_settings_of_its_own_in_a_preset() -> None:
    paper, best = preset("acdc", "paper"), preset("acdc", "best")
    assert (paper.data.size_px, best.data.size_px) == ((224, 224), (160, 160))
    assert paper.data.spacing_mm == best.data.spacing_mm
    assert (paper.loss.class_weights, best.loss.class_weights) == (1.0, 0.0)
    assert preset("chaos", "best").loss.class_weights == 0.5
    assert [preset(name, "best").teacher.gates for name in ("acdc", "lvsc", "chaos")] == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("dataset", READERS)
def test_best_is_on_a_cpu_of_the_size_of_fast(dataset: str) -> None:
    small, fast, best = (preset(dataset, name) for name in ("best-fast", "fast", "best"))
    for part in ("data", "segmentor", "discriminator", "gates"):
        assert getattr(small, part) == getattr(fast, part)
    for part in ("augment", "loss", "teacher"):
        assert getattr(small, part) == getattr(best, part)


def test_the_command_line_knows_every_preset() -> None:
    (option,) = [each for each in train_command.params if each.name == "preset"]
    assert isinstance(option.type, click.Choice)
    assert set(option.type.choices) == set(PRESETS)


def test_unknown_presets_and_data_sets_are_named() -> None:
    with pytest.raises(ConfigError, match=r"--preset: 'none' is unknown; known are paper, "):
        preset("acdc", "none")
    with pytest.raises(ConfigError, match=r"data set 'none' is unknown; known are acdc, "):
        preset("none", "paper")
