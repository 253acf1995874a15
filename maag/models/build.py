"""Build the networks of a configuration."""

from __future__ import annotations

from maag.config.schema import Config
from maag.models.discriminator import Discriminator
from maag.models.segmentor import Segmentor


def build_segmentor(config: Config) -> Segmentor:
    """The segmentor of `config`, freshly initialised from torch's global generator."""
    return Segmentor(config.data.channels, config.data.num_classes, config.segmentor, config.gates)


def build_discriminator(config: Config) -> Discriminator:
    """The discriminator of `config`, freshly initialised from torch's global generator."""
    return Discriminator(config.data.num_classes, config.data.size_px, config.discriminator)
