"""A model that travels to the workers of a cluster, which need not have its files."""

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
    """What opens the model anywhere."""

    name: str
    """Of its folder or file."""
    files: dict[str, bytes]
    """By name in the folder; a weights file has the name `.`."""
    device_name: str
    backend: str

    def __call__(self) -> Runner:
        """Unpack it where this is called and open it, whereupon its files are no longer needed."""
        with tempfile.TemporaryDirectory(prefix="maag-model-") as folder:
            model = Path(folder) / self.name
            for path, content in self.files.items():
                (model / path).parent.mkdir(exist_ok=True)
                (model / path).write_bytes(content)
            return open_model(model, self.device_name, self.backend).runner


def pack(model: Path, device_name: str, backend: str) -> ShippedModel:
    """All files that opening `model` needs: of an exported model those in its folder, of a run its best weights."""
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
