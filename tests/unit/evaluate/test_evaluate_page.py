"""The HTML page of an evaluation: self-contained, deterministic, and safe with odd names."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from maag.data.files.volume import Volume
from maag.evaluate.agreement import Pair
from maag.evaluate.page import page
from maag.evaluate.plots import agreement_svg
from maag.evaluate.report import CaseScores, Report, Subject
from maag.evaluate.worst import WorstCases
from maag.labels import IGNORE
from maag.metrics import ClassScores

Labels = NDArray[np.uint8]
VOLUME = Volume(np.random.default_rng(0).random((1, 3, 80, 60), np.float32), (8.0, 1.5, 1.25), np.eye(4))


def case(name: str, dice: float | None, patient: str | None = None) -> CaseScores:
    presence = "absent_in_both" if dice is None else "both"
    scores = {key: ClassScores(presence=presence, dice=dice, hd95_mm=dice and 2.5) for key in ("RV", "LV")}
    volumes = {key: Pair(reference=100, predicted=100 * (dice or 0)) for key in scores}
    return CaseScores(case_id=name, patient_id=patient or name, frame=name, scores=scores, volumes_ml=volumes)


def labels(value: int = 0, place: int = 1, side: int = 10) -> Labels:
    found = np.zeros((3, 80, 60), np.uint8)
    found[place, 20 : 20 + side, 20 : 20 + side] = value
    return found


def report_of(*cases: CaseScores, model: str = "runs/one") -> Report:
    return Report(subject=Subject(model=model, dataset="acdc", split="val"), cases=cases, without_mask=("x",))


class Parsed(HTMLParser):
    """What a browser would fetch, run or show of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_page_is_self_contained_and_shows_the_scores() -> None:
    worst = WorstCases(2)
    worst(case("a", 0.5), VOLUME, labels(2), labels(1))
    parsed = Parsed(page(report_of(*(case(f"p{number}", 0.9 - number / 10) for number in range(4))), worst.slices))
    assert {"script", "link", "iframe"}.isdisjoint(parsed.tags)
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in parsed.addresses)
    assert parsed.tags.count("svg") == 2
    assert "RV volume ml" in parsed.shown
    assert "split: valpatients: 4cases: 4without a mask, left out: 1" in parsed.shown
    assert "a, slice 2, Dice 0.500" in parsed.shown
    assert parsed.shown.index("p3") < parsed.shown.index("p0")


def test_names_are_escaped() -> None:
    odd = "<b>$x$ & \udcff"
    text = page(report_of(case(odd, 0.5), case("b", 0.6), case("c", None), model=odd))
    text.encode()
    parsed = Parsed(text)
    assert "<b>$x$ & \ufffd" in parsed.shown
    assert parsed.tags.count("h1") == 1


@pytest.mark.slow
def test_names_in_any_script_are_drawn_without_warnings() -> None:
    pairs = {"\u5de6\u5fc3\u5ba4": [Pair(reference=value, predicted=value + 1) for value in (1, 2, 4)]}
    assert "\u5de6\u5fc3\u5ba4" in str(agreement_svg(pairs))


def test_page_is_deterministic() -> None:
    cases = [case(f"p{number}", 0.5 + number / 10) for number in range(4)]
    worst = WorstCases(1)
    worst(cases[0], VOLUME, labels(2), labels(1))
    assert page(report_of(*cases), worst.slices) == page(report_of(*cases), worst.slices)


@pytest.mark.parametrize("dice", [0.9, None])
def test_single_case_has_a_page(dice: float | None) -> None:
    parsed = Parsed(page(report_of(case("a", dice))))
    assert parsed.tags.count("svg") == 1  # too few for limits of agreement
    assert "cases: 1" in parsed.shown


def test_worst_cases_are_kept_and_ties_keep_their_order() -> None:
    worst = WorstCases(3)
    for name, dice in (("a", 0.8), ("b", 0.3), ("c", None), ("d", 0.5), ("e", 0.8), ("f", 0.1)):
        worst(case(name, dice), VOLUME, labels(), labels(1))
    assert [shown.case.case_id for shown in worst.slices] == ["f", "b", "d"]
    equals = WorstCases(2)
    for name in "abc":
        equals(case(name, 0.5), VOLUME, labels(), labels(1))
    assert [shown.case.case_id for shown in equals.slices] == ["a", "b"]


def test_slice_with_most_wrong_pixels_is_cropped_to_its_structures() -> None:
    reference, prediction = labels(1, place=1) + labels(1, place=2, side=30), labels(1, place=2, side=30)
    reference[0] = IGNORE
    prediction[0] = 2
    worst = WorstCases(1)
    worst(case("a", 0.5), VOLUME, prediction, reference)
    (shown,) = worst.slices
    assert shown.number == 2
    assert shown.image.shape == shown.reference.shape == shown.prediction.shape == (42, 42)
    assert np.array_equal(shown.image, VOLUME.voxels[0, 1, 4:46, 4:46])
    assert (shown.reference == 1).sum() == 100
    assert shown.image.base is None
    assert shown.pixel_mm == (1.5, 1.25)


def test_crop_contains_a_wide_structure_entirely() -> None:
    prediction = labels()
    prediction[1, 30:35, 5:55] = 1
    worst = WorstCases(1)
    worst(case("a", 0.5), VOLUME, prediction, labels())
    (shown,) = worst.slices
    assert np.array_equal(shown.image, VOLUME.voxels[0, 1, 14:51])  # 16 pixels around it, and no column left out


def test_outlines_have_the_colours_of_the_classes() -> None:
    worst = WorstCases(1)
    worst(case("a", 0.5), VOLUME, labels(2, side=40), labels(1, side=20))
    text = page(report_of(case("a", 0.5)), worst.slices)
    (found,) = re.findall(r"data:image/png;base64,([^\"]+)", text)
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(found))).convert("RGB")).astype(int)
    for colour in ((30, 136, 229), (253, 216, 53)):
        assert (np.abs(drawn - colour).sum(axis=-1) < 30).sum() > 50
