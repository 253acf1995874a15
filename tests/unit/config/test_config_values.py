"""Errors in a setting's name or value are reported in one line that names it."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from all_settings import LEAVES, LIMIT_PATTERN, config_error
from hypothesis import given
from hypothesis import strategies as st

from maag.cli.resolving import parse_changes
from maag.config import codec
from maag.config.schema import Config
from maag.errors import ConfigError


@pytest.mark.parametrize("path", LEAVES)
def test_error_of_a_wrong_type_names_the_setting(path: str) -> None:
    assert config_error({path: {"a": "b\nc"}}).startswith(f"{path}: expected ")


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
def test_error_of_a_wrong_type_shows_a_valid_example(change: str, sentence: str) -> None:
    assert config_error(parse_changes([change])) == sentence
    ((path, example),) = parse_changes(shlex.split(sentence.partition("such as ")[2].rpartition(", got ")[0])).items()
    codec.override(Config(), {path: example})


@pytest.mark.parametrize("change", ["=1", " =1", "optim.lr"])
def test_change_without_name_or_value_shows_the_expected_form(change: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set .*: expected section\.key=value, as in --set optim\.lr=3e-4$"):
        parse_changes([change])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (leaf.path, float(number) + {"<": 0, "<=": 1, ">": 0, ">=": -1}[sign])
        for leaf in LEAVES.values()
        for sign, number in LIMIT_PATTERN.findall(leaf.type)
        if not leaf.type.startswith("list")
    ],
)
def test_value_out_of_limits_is_refused(path: str, value: float) -> None:
    assert re.fullmatch(rf"{path}: input should be (greater|less) than .*, got {value}", config_error({path: value}))


@pytest.mark.parametrize("path", ["train.seed", "data.split_seed", "data.scribble_seed", "optim.epochs"])
def test_number_that_would_overflow_is_refused(path: str) -> None:
    assert config_error({path: 10**23}).startswith(f"{path}: input should be less than or equal to 10")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "NaN", "1e999"])
def test_non_finite_number_is_refused(value: Any) -> None:
    assert config_error({"train.checkpoint_minutes": value}).startswith(
        "train.checkpoint_minutes: input should be a fin"
    )


@pytest.mark.parametrize("path", ["segmentor.residual_blocks", "gates.levels", "discriminator.scales", "data.size_px"])
def test_error_of_a_wrong_list_item_names_the_item(path: str) -> None:
    assert config_error({path: [0, -1]}).startswith(f"{path}.")


@pytest.mark.parametrize("blocks", [[], [1, 2, 2], [1, 2, 2, 2, 2]])
def test_residual_blocks_need_one_number_for_each_level(blocks: list[int]) -> None:
    assert config_error({"segmentor.residual_blocks": blocks}) == (
        "segmentor.residual_blocks: there must be one number for each of the 4 encoder levels, such as [1, 2, 2, 2], "
        f"got {blocks}"
    )


@given(st.text("abcdefgh_.", min_size=1))
def test_unknown_setting_is_refused(path: str) -> None:
    message = config_error({path: 1})
    assert message.startswith(f"{path}: no such setting; ")
    assert message.endswith("`maag config show` lists them all")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("optim.lrr", "optim.lr"),
        ("train.epochs", "optim.epochs"),
        ("epochs", "optim.epochs"),
        ("los.areas", "loss.areas"),
    ],
)
def test_error_of_an_unknown_setting_suggests_the_closest(path: str, meant: str) -> None:
    assert (
        config_error({path: 1}) == f"{path}: no such setting; did you mean {meant}? `maag config show` lists them all"
    )


@pytest.mark.parametrize("path", ["x.zzzz", "data.x", "nonsense", "optim2"])
def test_no_setting_is_suggested_for_a_dissimilar_name(path: str) -> None:
    assert config_error({path: 1}) == f"{path}: no such setting; `maag config show` lists them all"
