"""The model card's lines on the architecture and source of a model, and of each network of an ensemble."""

from __future__ import annotations

from deploy.artifact.manifest import Manifest, Member
from maag.config.schema import Config


def provenance(manifest: Manifest) -> str:
    """Markdown list items, without a final line break."""
    config, source = manifest.config, manifest.source
    if source.members:
        return _of_ensemble(manifest)
    return f"""- **Architecture**: a U-Net with {_gates(config)}, width
  {config.segmentor.width}{_encoder(config)}, {_precision(manifest)};
  trained with {config.data.supervision} supervision.
- **Source**: `{source.checkpoint}` ({source.kind or "weights"}), SHA-256 `{source.sha256}`; configuration
  `{manifest.config_digest}`, split `{source.split_digest}`."""


def _of_ensemble(manifest: Manifest) -> str:
    members = manifest.source.members
    networks = "\n".join(f"  {number}. {_network(member)}" for number, member in enumerate(members, start=1))
    return f"""- **Architecture**: the average of {len(members)} networks, {_precision(manifest)}:
  the mean of their class probabilities. It takes as long as all of them together.
- **Source**: each network is a U-Net. Settings in the manifest are those of the first, with configuration
  `{manifest.config_digest}`.
{networks}"""


def _network(member: Member) -> str:
    config = member.config
    return (
        f"`{member.checkpoint}` ({member.kind or 'weights'}), SHA-256 `{member.sha256}`, split "
        f"`{member.split_digest}`;\n     {_gates(config)}, width "
        f"{config.segmentor.width}{_encoder(config)}; trained with {config.data.supervision} supervision."
    )


def _gates(config: Config) -> str:
    if not config.gates.levels:
        return "no attention gates"
    return f"{'adversarial ' if config.adversarial else ''}attention gates at levels {list(config.gates.levels)}"


def _precision(manifest: Manifest) -> str:
    asked = manifest.fell_back_from
    return f"{manifest.precision}, as {asked} differed too much from PyTorch" if asked else manifest.precision


def _encoder(config: Config) -> str:
    blocks = config.segmentor.residual_blocks
    return f", residual blocks {list(blocks)} in its encoder" if any(blocks) else ""
