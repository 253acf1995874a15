"""What finished models say of the images that a run trains on: asked once, before its first step.

Every model is asked of several views of every slice, which a step could not afford, and a step need not ask any.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maag.config.schema import Config
from maag.data.cache.prepared import PreparedCase, PreparedData
from maag.data.cache.preparing import Progress
from maag.data.slices.supervision import SOFT_LABEL_SCALE, Supervision
from maag.data.slices.views import View
from maag.errors import OutOfTimeError, TrainingError
from maag.inference import TorchRunner, mean_probabilities
from maag.models.segmentor import Segmentor, SegmentorOutput
from maag.storage import storage_errors
from maag.train.acceleration import accelerated
from maag.train.stopping import StopRequest
from maag.train.team import Team


class MeanOfSegmentors(nn.Module):
    """Finished segmentors as one."""

    def __init__(self, segmentors: Sequence[Segmentor]) -> None:
        super().__init__()
        self.segmentors = nn.ModuleList(segmentors)

    def forward(self, images: Tensor) -> SegmentorOutput:
        """(N, C, H, W) to logits whose softmax is the mean of the segmentors' probabilities; no gates' maps."""
        likely = [segmentor(images).logits.float().log_softmax(dim=1) for segmentor in self.segmentors]
        return SegmentorOutput(torch.stack(likely).logsumexp(dim=0), {})


def lessons_of(
    teachers: Sequence[Segmentor],
    prepared: PreparedData,
    supervision: Supervision,
    config: Config,
    device: torch.device,
    team: Team,
    folder: Path,
    said: Progress | None = None,
    *,
    stop: StopRequest | None = None,
    slices_at_once: int = 32,
) -> NDArray[np.uint8]:
    """Ask the `teachers` of every case of `prepared` that trains; all workers of the team must do so at once.

    Args:
        teachers: finished segmentors; they are averaged, and end up on `device`, in evaluation mode.
        prepared: the data set.
        supervision: which of its slices train.
        config: how far slices are turned, and the precision of forward passes.
        device: where the teachers run.
        team: among whom the cases are shared out.
        folder: where the answers are kept while the run lasts, in a file without a name that ends with the process.
        said: is told how far it is.
        stop: may ask for an end, after which no further case is asked of, and no step must follow; has a time limit.
        slices_at_once: bounds the memory that answers take before they are kept.

    Returns:
        (S, num_classes, H, W) probabilities times SOFT_LABEL_SCALE, memory-mapped; 0 in cases that do not train.

    Raises:
        TrainingError: a teacher's answer is not a number.
        OutOfTimeError: the time was up before all were heard.
        StorageError: `folder` has no room for it.
    """
    trains = set(np.concatenate([supervision.scribbled, supervision.dense, supervision.unlabelled]).tolist())
    cases = [case for case in prepared.cases if not trains.isdisjoint(range(case.start, case.stop))]
    shape = (len(prepared.images), config.data.num_classes, *config.data.size_px)
    with storage_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            # Writing to room that is only promised would end the process without a word where there is none.
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        lessons = np.memmap(file, np.uint8, "w+", shape=shape)
    # They are asked once, so compiling them would not pay.
    asked = accelerated(MeanOfSegmentors(teachers), replace(config.train, compile=False), device)
    runner, views = TorchRunner(asked, device), _views(config.teacher.rotation_deg)
    own = team.shard.of(range(len(cases)))
    too_late = False
    for done, number in enumerate(own, start=1):
        too_late = stop is not None and stop.out_of_time
        if too_late or (stop and stop.interrupted is not None):
            break
        case = cases[number]
        for start in range(case.start, case.stop, slices_at_once):
            some = slice(start, min(start + slices_at_once, case.stop))
            probabilities = mean_probabilities(np.array(prepared.images[some]), runner, views)
            if not np.isfinite(probabilities).all():
                # As a byte it would be nought, and quietly teach nothing.
                raise TrainingError(
                    f"case {case.case_id}: what the finished models of --teacher say of it is not a number; one of "
                    "them is damaged, or the image's intensities are extreme: look at both"
                )
            lessons[some] = np.rint(probabilities * SOFT_LABEL_SCALE)
        if said:
            said(done, len(own))
    _share(lessons, cases, device, team)
    if team.any(too_late)[0]:  # of the others too, who would wait for this one at the first step
        raise OutOfTimeError(
            "--max-time: it was over before the finished models of --teacher had been asked of all cases that train, "
            "so no step was taken; give more time, and go on with --resume"
        )
    return lessons


def _views(largest_deg: float) -> tuple[View, ...]:
    angles = (0.0, largest_deg / 2, -largest_deg / 2, largest_deg, -largest_deg) if largest_deg else (0.0,)
    return tuple(View(degrees=degrees) for degrees in angles)


def _share(lessons: NDArray[np.uint8], cases: Sequence[PreparedCase], device: torch.device, team: Team) -> None:
    """Give all workers what each was told; what another was told of is nought here, so sums are exact."""
    if team.size == 1:
        return
    for case in cases:
        own = torch.from_numpy(lessons[case.start : case.stop]).to(device)
        lessons[case.start : case.stop] = team.sum(own).cpu().numpy()
