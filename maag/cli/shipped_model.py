"""A model that is sent to the workers of a cluster, which need not have its files."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maag.cli.models import open_model

if TYPE_CHECKING:
    from maag.inference import Runner


@dataclass(frozen=True, kw_only=True, slots=True)
class ShippedModel:
    """The files of a model; called on a worker, it opens the model there."""

    name: str
    """Name of the model's folder or file."""
    files: dict[str, bytes]
    """Content by name in the folder; a weights file has the name `.`."""
    device_name: str
    backend: str

    def __call__(self) -> Runner:
        """Unpack the files into a temporary folder and open the model, which needs them no longer then."""
        with tempfile.TemporaryDirectory(prefix="maag-model-") as folder:
            model = Path(folder) / self.name
            for name, content in self.files.items():
                (model / name).parent.mkdir(exist_ok=True)
                (model / name).write_bytes(content)
            return open_model(model, self.device_name, self.backend).runner


def pack(model: Path, device_name: str, backend: str) -> ShippedModel:
    """All files needed to open `model`: those in the folder of an exported model, or the best weights of a run."""
    from deploy.artifact.manifest import is_artifact
    from maag.checkpoint import find_weights

    if is_artifact(model):
        paths = {path.name: path for path in sorted(model.iterdir()) if path.is_file()}
        name = model.resolve().name
    else:
        weights = find_weights(model)
        paths, name = {".": weights}, weights.name
    files = {inside: path.read_bytes() for inside, path in paths.items()}
    return ShippedModel(name=name, files=files, device_name=device_name, backend=backend)
