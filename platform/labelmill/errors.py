"""The tree of errors a user can meet.

    LabelmillError                 everything below; `labelmill` prints it in one piece and exits with `exit_code`
    ├── SpecError                  what the user wrote is not a valid spec
    ├── StorageError               an object store or folder did not do what was asked
    │   ├── NotFoundError          the object, folder or bucket is not there
    │   ├── ForbiddenError         the store refused us
    │   │   └── CredentialsError   whatever we ask for: this machine has no keys, or none that the store takes
    │   ├── UnavailableError       the store did not answer; the same call may work later
    │   │   └── SlowDownError      because it is asked too often
    │   ├── ChangedError           the object is no longer the one that was listed
    │   └── ArchivedError          the object lies in an archive, and cannot be read before it is restored
    ├── ImageError                 one picture has no labels; it ends as a row, never as the end of a run
    │   ├── UnreadableError        damaged
    │   ├── UnsupportedError       not a picture of a format on the closed list
    │   ├── TooLargeError          more pixels than the limit
    │   ├── CrashedError           the process that decoded it died of it
    │   └── TimedOutError          decoding it took longer than is allowed
    ├── DataError                  a training set, or a list of pictures to label, does not fit together
    ├── BundleError                a model bundle is damaged, or of a format we cannot read
    ├── RegistryError              a model, version or alias that is not in the registry, or a lost race for one
    ├── TableError                 a label table cannot be opened or written
    ├── BusyError                  another run holds the lease of a table, or of a training run
    ├── FencedError                another run took the lease over; nothing of ours may be committed any more
    ├── FailureBudgetError         too many pictures failed; the run stopped and kept what it committed
    ├── VanishedError              too many pictures are gone; the run stopped before it wrote anything
    └── ClusterError               Ray did not do what was asked, or a server could not listen
        ├── NoRayError             it could not be started or reached
        └── NodeError              a node of the cluster reaches nothing of what a job names

A message says what was expected, what came, and what to do, on one line. It never needs a traceback to be understood.
"""

__all__ = [
    "ArchivedError",
    "BundleError",
    "BusyError",
    "ChangedError",
    "ClusterError",
    "CrashedError",
    "CredentialsError",
    "DataError",
    "FailureBudgetError",
    "FencedError",
    "ForbiddenError",
    "ImageError",
    "LabelmillError",
    "NoRayError",
    "NodeError",
    "NotFoundError",
    "RegistryError",
    "SlowDownError",
    "SpecError",
    "StorageError",
    "TableError",
    "TimedOutError",
    "TooLargeError",
    "UnavailableError",
    "UnreadableError",
    "UnsupportedError",
    "VanishedError",
    "first_line",
]


class LabelmillError(Exception):
    """Base of every error that a user can meet: a message, and perhaps a line for each of several mistakes."""

    exit_code = 1

    def __str__(self) -> str:
        return "\n  ".join(map(str, self.args))


class SpecError(LabelmillError):
    exit_code = 2


class StorageError(LabelmillError): ...


class NotFoundError(StorageError): ...


class ForbiddenError(StorageError): ...


class CredentialsError(ForbiddenError): ...


class UnavailableError(StorageError): ...


class SlowDownError(UnavailableError): ...


class ChangedError(StorageError): ...


class ArchivedError(StorageError): ...


class ImageError(LabelmillError):
    """A picture without labels. `status` is the word that its row in the label table carries."""

    status: str


class UnreadableError(ImageError):
    status = "unreadable"


class UnsupportedError(ImageError):
    status = "unsupported"


class TooLargeError(ImageError):
    status = "too_large"


class CrashedError(ImageError):
    status = "crashed"


class TimedOutError(ImageError):
    status = "timed_out"


class DataError(LabelmillError): ...


class BundleError(LabelmillError): ...


class RegistryError(LabelmillError): ...


class TableError(LabelmillError): ...


class BusyError(LabelmillError):
    exit_code = 5


class FencedError(LabelmillError): ...


class FailureBudgetError(LabelmillError):
    exit_code = 3


class VanishedError(LabelmillError):
    exit_code = 4


class ClusterError(LabelmillError): ...


class NoRayError(ClusterError):
    exit_code = 6


class NodeError(ClusterError):
    """`certain`: it is the node or its keys, and cannot be the pictures that it was given."""

    def __init__(self, message: str, *, certain: bool = True) -> None:
        super().__init__(message)
        self.certain = certain


def first_line(exc: BaseException) -> str:
    """What a foreign error says, short enough to stand in one of ours."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300].rstrip(".") or type(exc).__name__
