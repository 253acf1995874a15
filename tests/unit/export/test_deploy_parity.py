"""How far two runners differ, by numbers counted by hand, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.artifact.engine import Precision
from deploy.runners.parity import compare
from deploy.runners.seeded_inputs import seeded_inputs
from maag.config.data import DataConfig
from maag.errors import ExportError

Images = NDArray[np.float32]
DATA = DataConfig(classes=("background", "a"), size_px=(16, 32))


class Logistic:
    """Two classes by a logistic function of the intensity, shifted by a constant error."""

    def __init__(self, name: str, shift: float = 0.0) -> None:
        self.name = name
        self.shift = shift

    def __call__(self, images: Images) -> Images:
        probability = 1 / (1 + np.exp(-images[:, 0])) + np.float32(self.shift)
        return np.stack([1 - probability, probability], axis=1)


def test_compare_records_inputs_runners_and_differences() -> None:
    rows = compare(Logistic("one"), Logistic("two", 1e-5), {"x": seeded_inputs(DATA)["noise-5"]})
    assert [(row.inputs, row.num_slices, row.reference, row.candidate) for row in rows] == [("x", 5, "one", "two")]
    assert rows[0].max_difference == pytest.approx(1e-5, rel=0.01)
    assert rows[0].label_agreement > 0.9999


def test_a_difference_is_refused_with_its_size() -> None:
    with pytest.raises(ExportError, match=r"two against one on noise-1 .* differ by up to 2\.00e-02 .* labels agree"):
        compare(Logistic("one"), Logistic("two", 0.02), seeded_inputs(DATA))


@pytest.mark.parametrize("name", ["phantoms", "blobs"])
def test_a_difference_that_changes_no_label_is_refused_on_synthetic_images(name: str) -> None:
    with pytest.raises(ExportError, match=rf"two against one on {name} .* differ by up to 2\.00e-02 \(limit 1e-03\)"):
        compare(Logistic("one"), Logistic("two", 0.02), {name: seeded_inputs(DATA)[name]})


def test_probabilities_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ExportError, match="1024 and 0 probabilities are not finite"):
        compare(Logistic("one"), Logistic("two", float("nan")), seeded_inputs(DATA))


def test_probabilities_of_another_shape_are_refused() -> None:
    class Cropping(Logistic):
        def __call__(self, images: Images) -> Images:
            return super().__call__(images)[:, :, 1:]

    with pytest.raises(ExportError, match="shapes"):
        compare(Logistic("one"), Cropping("two"), seeded_inputs(DATA))


def test_a_refusal_lists_all_measurements() -> None:
    with pytest.raises(ExportError) as caught:
        compare(Logistic("one"), Logistic("two", 0.02), seeded_inputs(DATA))
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["noise-1", "noise-2", "noise-5", "phantoms", "blobs"]
    assert all("two differs by 2.0e-02" in line for line in lines[1:])


class WithOutputs(Logistic):
    """Also gives labels, and a gate of a constant value."""

    def __init__(self, name: str, *, labels: int = 0, gate: float = 0.5) -> None:
        super().__init__(name)
        self.labels = labels
        self.gate = gate

    def outputs(self, images: Images) -> dict[str, NDArray[Any]]:
        probabilities = self(images)
        labels = (probabilities.argmax(axis=1) + self.labels).astype(np.uint8)
        gates = np.full((len(images), 1, *images.shape[2:]), self.gate, np.float32)
        return {"probabilities": probabilities, "labels": labels, "gates_0": gates}


@pytest.mark.parametrize(
    ("candidate", "sentence"),
    [
        (WithOutputs("two", labels=1), "512 labels are not the class of the largest probability"),
        (WithOutputs("two", gate=0.6), r"gates differ by up to 1\.00e-01 \(limit 1e-03\)"),
        (WithOutputs("two", gate=float("nan")), "gates differ by up to inf"),
    ],
)
def test_labels_and_gates_are_compared_if_the_graph_outputs_them(candidate: WithOutputs, sentence: str) -> None:
    inputs = seeded_inputs(DATA)
    compare(WithOutputs("one"), WithOutputs("two"), inputs)
    compare(Logistic("one"), WithOutputs("two"), inputs)
    with pytest.raises(ExportError, match=rf"two against one on noise-1 \(1 slices\): {sentence}"):
        compare(WithOutputs("one"), candidate, inputs)


class FixedProbabilities:
    """Three classes, with the given probabilities of 1 and 2 for each pixel, whatever the images."""

    def __init__(self, name: str, one: NDArray[np.float64], two: NDArray[np.float64]) -> None:
        self.name = name
        self._probabilities = np.stack([1 - one - two, one, two])[None].astype(np.float32)

    def __call__(self, images: Images) -> Images:
        return self._probabilities


SIDE = 200
FLAT = {"validation": np.zeros((1, 1, SIDE, SIDE), np.float32)}


def first_pixels(count: int, value: float, elsewhere: float = 0.01) -> NDArray[np.float64]:
    """A plane of `elsewhere`, but with `value` in the first `count` pixels."""
    plane = np.full((SIDE, SIDE), elsewhere)
    plane.ravel()[:count] = value
    return plane


def test_difference_agreement_and_dice_match_hand_counts() -> None:
    reference = FixedProbabilities("one", first_pixels(8000, 0.6), first_pixels(0, 0))
    candidate = FixedProbabilities(
        "two", first_pixels(7960, 0.6), first_pixels(8000, 0.05)
    )  # the last 40 pixels become background
    (row,) = compare(reference, candidate, FLAT, "int8")
    assert row.max_difference == pytest.approx(0.59)
    assert row.label_agreement == pytest.approx(1 - 40 / SIDE**2)
    assert row.dice == pytest.approx(2 * 7960 / (8000 + 7960))
    assert row.foreground_pixels == 8000


def test_the_largest_difference_is_symmetric() -> None:
    sure = FixedProbabilities("one", first_pixels(0, 0), first_pixels(0, 0))
    (row,) = compare(sure, FixedProbabilities("two", first_pixels(0, 0, 0.04), first_pixels(0, 0, 0.03)), FLAT, "fp16")
    assert row.max_difference == pytest.approx(0.05)  # of background; the others gain less
    (row,) = compare(FixedProbabilities("two", first_pixels(0, 0, 0.04), first_pixels(0, 0, 0.03)), sure, FLAT, "fp16")
    assert row.max_difference == pytest.approx(0.05)


def test_a_lost_small_structure_is_refused_though_nearly_all_labels_agree() -> None:
    with pytest.raises(ExportError, match=r"99\.92\d\d% of the labels agree .* their Dice is 0\.0000"):
        compare(
            FixedProbabilities("one", first_pixels(30, 0.51), first_pixels(0, 0)),
            FixedProbabilities("two", first_pixels(30, 0.45), first_pixels(0, 0)),
            FLAT,
            "fp16",
        )


def test_a_class_that_spreads_over_others_is_named_in_the_refusal() -> None:
    reference, candidate = (
        FixedProbabilities("one", first_pixels(60, 0.95), first_pixels(0, 0)),
        FixedProbabilities("two", first_pixels(120, 0.95), first_pixels(0, 0)),
    )
    with pytest.raises(ExportError, match=r"of 60 pixels that are confidently class 1, 60 .* a Dice of 0\.6667"):
        compare(reference, candidate, {"blobs": FLAT["validation"]}, "int8")


@pytest.mark.parametrize(("precision", "refused"), [("fp32", True), ("fp16", False), ("int8", False)])
def test_label_agreement_on_noise_is_required_only_of_fp32(precision: Precision, refused: bool) -> None:
    reference, candidate = (
        FixedProbabilities(name, first_pixels(0, 0, p), first_pixels(0, 0))
        for name, p in (("one", 0.4953), ("two", 0.4947))
    )
    noise = {"noise-1": FLAT["validation"]}
    if refused:
        with pytest.raises(ExportError, match=r"two against one on noise-1 .* 0\.0000% of the labels agree"):
            compare(reference, candidate, noise, precision)
    else:
        compare(reference, candidate, noise, precision)
