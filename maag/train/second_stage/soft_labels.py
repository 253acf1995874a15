"""Soft labels that finished models predict for a student's training images, once, before its first step.

Each model sees several views of every slice, which would be too slow within a step.
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
    """An ensemble of finished segmentors."""

    def __init__(self, segmentors: Sequence[Segmentor]) -> None:
        super().__init__()
        self.segmentors = nn.ModuleList(segmentors)

    def forward(self, images: Tensor) -> SegmentorOutput:
        """(N, C, H, W) to logits whose softmax is the mean of the segmentors' probabilities; no gate maps."""
        log_probabilities = [segmentor(images).logits.float().log_softmax(dim=1) for segmentor in self.segmentors]
        return SegmentorOutput(torch.stack(log_probabilities).logsumexp(dim=0), {})


def predict_soft_labels(
    teachers: Sequence[Segmentor],
    prepared: PreparedData,
    supervision: Supervision,
    config: Config,
    device: torch.device,
    team: Team,
    folder: Path,
    progress: Progress | None = None,
    *,
    stop: StopRequest | None = None,
    slices_at_once: int = 32,
) -> NDArray[np.uint8]:
    """Predict soft labels for every training case of `prepared`; all workers of the team must call it at once.

    Args:
        teachers: finished segmentors; they are averaged, moved to `device` and put in evaluation mode.
        prepared: the data set.
        supervision: which of its slices train.
        config: the largest rotation of the views, and the precision of forward passes.
        device: where the teachers run.
        team: the workers that share the cases.
        folder: where the soft labels are stored during the run, in an unnamed file that disappears with the process.
        progress: called with (cases done, cases in all) after each of this worker's cases.
        stop: may request an end, after which the remaining cases stay 0 and no step must follow; has a time limit.
        slices_at_once: limits the memory that predictions take before they are stored.

    Returns:
        (S, num_classes, H, W) probabilities times SOFT_LABEL_SCALE, memory-mapped; 0 in cases that do not train.

    Raises:
        TrainingError: a predicted probability is NaN or infinite.
        OutOfTimeError: the time limit passed before all cases were done.
        StorageError: `folder` has no room for the file.
    """
    training = set(np.concatenate([supervision.scribbled, supervision.dense, supervision.unlabelled]).tolist())
    cases = [case for case in prepared.cases if not training.isdisjoint(range(case.start, case.stop))]
    shape = (len(prepared.images), config.data.num_classes, *config.data.size_px)
    with storage_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            # In a sparse file on a full disk, writing to the map would kill the process without a message.
            os.posix_fallocate(file.fileno(), 0, math.prod(shape))
        soft_labels = np.memmap(file, np.uint8, "w+", shape=shape)
    # Each view is predicted once, so compiling would not pay.
    ensemble = accelerated(MeanOfSegmentors(teachers), replace(config.train, compile=False), device)
    runner, views = TorchRunner(ensemble, device), _views(config.teacher.rotation_deg)
    own = team.shard.of(range(len(cases)))
    out_of_time = False
    for done, number in enumerate(own, start=1):
        out_of_time = stop is not None and stop.out_of_time
        if out_of_time or (stop and stop.interrupted is not None):
            break
        case = cases[number]
        for start in range(case.start, case.stop, slices_at_once):
            some = slice(start, min(start + slices_at_once, case.stop))
            probabilities = mean_probabilities(np.array(prepared.images[some]), runner, views)
            if not np.isfinite(probabilities).all():
                # As a byte it would become 0, and silently give no soft label.
                raise TrainingError(
                    f"case {case.case_id}: the models of --teacher predict probabilities that are NaN or infinite; one "
                    "of them is damaged, or the image's intensities are extreme: check both"
                )
            soft_labels[some] = np.rint(probabilities * SOFT_LABEL_SCALE)
        if progress:
            progress(done, len(own))
    _share(soft_labels, cases, device, team)
    if team.any(out_of_time)[0]:  # on any worker, or the others would wait for it at the first step
        raise OutOfTimeError(
            "--max-time: it passed before the models of --teacher had predicted all training cases, so no step was "
            "taken; give more time, and continue with --resume"
        )
    return soft_labels


def _views(largest_deg: float) -> tuple[View, ...]:
    angles = (0.0, largest_deg / 2, -largest_deg / 2, largest_deg, -largest_deg) if largest_deg else (0.0,)
    return tuple(View(degrees=degrees) for degrees in angles)


def _share(soft_labels: NDArray[np.uint8], cases: Sequence[PreparedCase], device: torch.device, team: Team) -> None:
    """Give every worker the soft labels of all; those of other workers are 0 here, so sums are exact."""
    if team.size == 1:
        return
    for case in cases:
        own = torch.from_numpy(soft_labels[case.start : case.stop]).to(device)
        soft_labels[case.start : case.stop] = team.sum(own).cpu().numpy()
