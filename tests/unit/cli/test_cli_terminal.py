"""What the terminal shows about a split and about failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from maag.config.schema import Config


@pytest.mark.parametrize(
    ("done", "failed", "sentence"),
    [
        (0, 1, "the only volume failed: broken"),
        (0, 2, "all 2 volumes failed; first error: broken"),
        (3, 1, "1 volume failed, the rest are done; first error: broken"),
    ],
)
def test_failure_message_counts_the_failed_volumes(done: int, failed: int, sentence: str) -> None:
    from deploy.predicting.batch import Outcome
    from deploy.predicting.ledger import Entry
    from maag.cli.predict_summary import failure_message

    entry = Entry(
        source="a",
        target="a",
        source_version=None,
        model="m",
        target_md5=None,
        finished_at="",
        seconds=0,
        error="broken",
    )
    assert failure_message(Outcome(done=done, skipped=0, failed=(entry,) * failed)) == sentence


def test_training_display_counts_the_patients_in_each_part_of_the_split(capsys: pytest.CaptureFixture[str]) -> None:
    from maag.cli.terminal import TrainingDisplay
    from maag.data.splits import Split

    split = Split(scheme="own", scribbled=("a", "b"), unlabelled=("c",), shapes=("d",), val=("e",))
    TrainingDisplay(Path("run"), Config(), split, "digest", "cpu")
    assert (
        "Patients: 2 for training with scribbles, 1 unlabelled, 1 with masks for the discriminator, 1 for validation, "
        "0 held out for testing"
    ) in " ".join(capsys.readouterr().err.split())
