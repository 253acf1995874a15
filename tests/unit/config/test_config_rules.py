"""Incompatible settings are refused in one line that names them."""

from __future__ import annotations

from typing import Any

import pytest
from all_settings import config_error

from maag.config import codec
from maag.config.schema import Config


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data.size_px": "[100, 16]"}, "data.size_px: height and width must be multiples of 16"),
        ({"gates.levels": "[0, 0]"}, "gates.levels: each level may occur only once"),
        ({"discriminator.scales": "[1]"}, "discriminator.scales: 0 is required"),
        ({"data.unlabelled_value": "2"}, "data.unlabelled_value: 2 is the value of class 'MYO'"),
        ({"optim.lr_min": "1"}, "optim.lr_min: must not exceed lr"),
        ({"loss.dynamic_balance": "perhaps"}, "loss.dynamic_balance: expected true or false"),
        ({"data.folds": "5", "data.fold": "6"}, "data.fold=6 is not among 5 folds; it must be from 1 to data.folds"),
        ({"data.fold": "2"}, "data.fold=2 needs the number of folds, such as data.folds=5"),
        ({"data.folds": "5", "data.split": "split0"}, "data.folds=5 needs a random split; leave data.split=split0 out"),
    ],
)
def test_settings_that_break_a_rule_are_refused(change: dict[str, str], sentence: str) -> None:
    assert sentence in config_error(change)


def test_fractions_that_leave_no_training_patients_are_refused() -> None:
    assert config_error({"data.val_fraction": 0.5, "data.test_fraction": 0.6}).startswith(
        "data.val_fraction=0.5 and data.test_fraction=0.6 leave no patients to train on; together they must be below 1"
    )


def test_lowest_level_needs_two_values_per_channel_to_normalise() -> None:
    small = {"optim.batch_size": 1, "data.size_px": [16, 16]}
    assert "optim.batch_size=1 with data.size_px=[16, 16] leaves one value per channel" in config_error(small)
    assert codec.override(Config(), {**small, "optim.batch_size": 2}).optim.batch_size == 2
    assert codec.override(Config(), {**small, "data.size_px": [16, 32]}).optim.batch_size == 1


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        (
            {"data.supervision": "semi", "loss.adversarial_unlabelled": 0},
            "loss.adversarial_unlabelled above 0, such as 0.2, or loss.teacher",
        ),
        ({"data.supervision": "mixed", "optim.batch_size": 1}, "optim.batch_size"),
    ],
)
def test_error_of_a_rule_across_sections_names_the_needed_setting(changes: dict[str, Any], needed: str) -> None:
    assert config_error(changes).startswith(f"data.supervision={changes['data.supervision']} needs {needed}")


@pytest.mark.parametrize(
    ("supervision", "weights"),
    [
        ("weak", ["loss.supervised"]),
        ("semi", ["loss.supervised"]),
        ("dense", ["loss.dense"]),
        ("mixed", ["loss.supervised", "loss.dense"]),
    ],
)
def test_dynamic_balance_with_zero_supervised_weight_is_refused(supervision: str, weights: list[str]) -> None:
    zero_weights = {"data.supervision": supervision, **dict.fromkeys(weights, 0)}
    message = config_error(zero_weights)
    assert message.startswith(
        f"{' and '.join(f'{name}=0' for name in weights)} with loss.dynamic_balance=true would turn"
    )
    alone = {"loss.adversarial": 0, "loss.adversarial_unlabelled": 0, "loss.teacher": 1, "teacher.decay": 0.9}
    for way_out in ({weights[0]: 1}, {"loss.dynamic_balance": False}, alone):
        assert codec.override(Config(), {**zero_weights, **way_out}).data.supervision == supervision
    # A loss that supervises nothing may have zero weight.
    other = {"loss.supervised", "loss.dense"} - {*weights}
    assert codec.override(Config(), {"data.supervision": supervision, **dict.fromkeys(other, 0)})


def test_soft_labels_need_a_teacher() -> None:
    assert "loss.teacher=1 needs teacher.decay above 0" in config_error({"loss.teacher": 1.0})


def test_duplicate_class_names_are_refused() -> None:
    assert config_error({"data.classes": ["background", "a", "a"]}).startswith(
        "data.classes: each name may occur only once"
    )
