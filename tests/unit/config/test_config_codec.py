"""Settings convert to plain types and back, and files that hold none are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from all_settings import LEAVES, LIMIT_PATTERN
from hypothesis import given, settings
from hypothesis import strategies as st

from maag.config import codec
from maag.config.schema import Config
from maag.data.catalog import READERS
from maag.errors import ConfigError

# Settings whose type alone does not ensure that they are valid with any values of the others.
NARROWER: dict[str, st.SearchStrategy[Any]] = {
    "data.classes": st.lists(st.text(), min_size=2, max_size=4, unique=True),
    "data.dataset": st.sampled_from(list(READERS)),
    "data.unlabelled_value": st.none() | st.integers(9, 255),
    "data.size_px": st.lists(st.integers(1, 40).map(lambda side: 16 * side), min_size=2, max_size=2),
    "data.folds": st.none() | st.integers(5, 9),
    "data.fold": st.integers(1, 5),
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
    limits = {sign: float(number) for sign, number in LIMIT_PATTERN.findall(leaf.type)}
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


def completed(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes, with the settings that they require: soft labels need a teacher, folds a random split."""
    required: dict[str, Any] = {}
    if changes.get("loss.teacher"):
        required["teacher.decay"] = changes.get("teacher.decay", 0.5)
    if changes.get("data.fold", 1) > 1:
        required["data.folds"] = changes.get("data.folds") or 5
    if required.get("data.folds") or changes.get("data.folds"):
        required["data.split"] = "random"
    return {**changes, **required}


CHANGES = st.fixed_dictionaries({}, optional={path: values(leaf) for path, leaf in LEAVES.items()}).map(completed)


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


def test_digest_does_not_depend_on_the_order_of_settings() -> None:
    plain = codec.to_dict(Config())
    reordered = {section: dict(reversed(settings.items())) for section, settings in reversed(plain.items())}
    assert codec.digest_of_plain(reordered) == codec.digest(Config())


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=lambda leaf: leaf.path)
def test_any_change_changes_the_digest(leaf: codec.Setting) -> None:
    required = {"loss.teacher": {"teacher.decay": 0.5}, "data.fold": {"data.folds": 5}}
    base = codec.override(Config(), required.get(leaf.path, {}))

    @settings(max_examples=3, deadline=None)
    @given(values(leaf).filter(lambda value: value != leaf.value))
    def check(value: Any) -> None:
        assert codec.digest(codec.override(base, {leaf.path: value})) != codec.digest(base)

    check()


@pytest.mark.parametrize(("text", "power"), [("true", 1.0), ("false", 0.0), ("0.5", 0.5)])
def test_class_weights_accept_booleans_and_powers(text: str, power: float) -> None:
    assert codec.override(Config(), {"loss.class_weights": text}).loss.class_weights == power


@pytest.mark.parametrize("plain", [{"optim": {"nonsense": 1}}, {"nonsense": {}}])
def test_unknown_key_in_a_file_is_refused(plain: dict[str, Any]) -> None:
    path = "optim.nonsense" if "optim" in plain else "nonsense"
    with pytest.raises(ConfigError) as caught:
        codec.from_document(plain, "config.json")
    assert str(caught.value).startswith(f"config.json: {path}: no such setting")


@pytest.mark.parametrize("plain", [[], None, "text", {"format_version": 2}, {"optim": 3}, {"optim": None}])
def test_file_that_is_not_a_configuration_is_refused(plain: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json: .*(JSON object|format_version 2 is unkn|optim: expected)"):
        codec.from_document(plain, "config.json")


@pytest.mark.parametrize("section", ["segmentor", "discriminator"])
def test_misspelt_setting_is_matched_in_its_own_section_first(section: str) -> None:
    with pytest.raises(ConfigError) as caught:
        codec.override(Config(), {f"{section}.widht": 8})
    assert [each for each in ("segmentor.width", "discriminator.width") if each in str(caught.value)] == [
        f"{section}.width"
    ]


def test_long_value_is_shortened_in_the_error() -> None:
    with pytest.raises(ConfigError) as caught:
        codec.override(Config(), {"optim.lr": "x" * 10_000})
    assert len(str(caught.value)) < 500
