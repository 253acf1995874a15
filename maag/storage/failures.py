"""Failures of storage requests: kinds that all storages share, and their error messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from maag.errors import AccessDeniedError, MissingObjectError, ObjectChangedError, StorageError
from maag.storage.retries import TRANSIENT_STATUSES


class Kind(Enum):
    """Why a request failed."""

    MISSING = auto()
    MISSING_BUCKET = auto()
    DENIED = auto()
    CHANGED = auto()
    TRANSIENT = auto()
    """Throttled, unavailable, or an incomplete answer: worth a retry."""
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request."""

    kind: Kind
    message: str
    """The storage's own message."""
    way_out: str = ""
    """How to get access, for DENIED."""

    def as_error(self, what: str, verb: str) -> StorageError:
        """The error to raise: `cannot VERB WHAT: reason and way out`."""
        start, message = f"cannot {verb} {what}", " ".join(self.message.split()).rstrip(". ")
        match self.kind:
            case Kind.MISSING if verb == "read":
                return MissingObjectError(f"{start}: there is no such object")
            case Kind.MISSING | Kind.MISSING_BUCKET:
                return MissingObjectError(f"{start}: there is no such bucket; check its name and the account")
            case Kind.DENIED:
                return AccessDeniedError(f"{start}: access denied ({message}); {self.way_out}")
            case Kind.CHANGED:
                return ObjectChangedError(f"{start}: it has changed since it was listed; list it again")
            case Kind.TRANSIENT:
                return StorageError(f"{start}: every attempt failed ({message}); check the network, or try again later")
            case Kind.OTHER:
                return StorageError(f"{start}: {message}; check the address and the settings of this storage")


class RequestFailed(Exception):
    """Raised by a store for a failure that its client library does not raise."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def kind_of_status(status: int) -> Kind:
    """The kind of failure for an HTTP status without further information."""
    if status in TRANSIENT_STATUSES:
        return Kind.TRANSIENT
    return {401: Kind.DENIED, 403: Kind.DENIED, 404: Kind.MISSING, 412: Kind.CHANGED}.get(status, Kind.OTHER)
