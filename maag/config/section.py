"""The decorator for sections of settings, and types that several sections share."""

from __future__ import annotations

from typing import Annotated, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Section = TypeVar("Section")

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
# Larger values would overflow in PyTorch or NumPy, where they are multiplied.
Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrZero = Annotated[int, Field(ge=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, le=10**15)]
Level = Annotated[int, Field(ge=0, le=3)]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def section(settings: type[Section]) -> type[Section]:
    """Make a class of settings frozen and validated; unknown names and NaN or infinite numbers are refused.

    Each setting is a `Field` with a default and a description, which `maag config show` prints.
    """
    strict = ConfigDict(extra="forbid", allow_inf_nan=False)
    return cast(type[Section], dataclass(frozen=True, kw_only=True, slots=True, config=strict)(settings))
