"""What a storage may refuse, as kinds that all storages share and sentences of ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from maag.errors import AccessDeniedError, MissingObjectError, ObjectChangedError, StorageError
from maag.storage.retries import PASSING_STATUSES


class Kind(Enum):
    """Why a request failed."""

    MISSING = auto()
    MISSING_BUCKET = auto()
    DENIED = auto()
    CHANGED = auto()
    PASSING = auto()
    """Throttled, broken for now, or without a whole answer: worth asking again."""
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request."""

    kind: Kind
    said: str
    """The storage's words."""
    way_out: str = ""
    """For those denied: what gives access."""

    def as_error(self, what: str, verb: str) -> StorageError:
        """The error to raise: `cannot VERB WHAT: reason and way out`."""
        start, said = f"cannot {verb} {what}", " ".join(self.said.split()).rstrip(". ")
        match self.kind:
            case Kind.MISSING if verb == "read":
                return MissingObjectError(f"{start}: there is no such object")
            case Kind.MISSING | Kind.MISSING_BUCKET:
                return MissingObjectError(f"{start}: there is no such bucket; check its name and the account")
            case Kind.DENIED:
                return AccessDeniedError(f"{start}: access denied ({said}); {self.way_out}")
            case Kind.CHANGED:
                return ObjectChangedError(f"{start}: it is no longer the object that was listed; list it again")
            case Kind.PASSING:
                return StorageError(f"{start}: every attempt failed ({said}); check the network, or try again later")
            case Kind.OTHER:
                return StorageError(f"{start}: {said}; check the address and the settings of this storage")


class Refused(Exception):
    """A failure that a store finds by itself."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.said)
        self.failure = failure


def kind_of_status(status: int) -> Kind:
    """What a status of HTTP says where nothing more is known."""
    if status in PASSING_STATUSES:
        return Kind.PASSING
    return {401: Kind.DENIED, 403: Kind.DENIED, 404: Kind.MISSING, 412: Kind.CHANGED}.get(status, Kind.OTHER)
