"""The asyncio-first Python SDK for FLUX.1 Kontext [pro]: one picture or thousands, each paid for exactly once."""

from typing import TYPE_CHECKING, Any

from kontext_async.errors import (
    AuthenticationFailed,
    ConfigurationError,
    CostLimitReached,
    DownloadFailed,
    GatewayError,
    GatewayUnavailable,
    InvalidRequest,
    KontextError,
    MalformedAnswer,
    PermissionDenied,
    RateLimited,
    RequestRejected,
    SessionClosed,
    SubmissionUncertain,
    TaskError,
    TaskFailed,
    TaskNotFound,
    TaskTimeout,
    UsageError,
)
from kontext_async.events import (
    Abandoned,
    Accepted,
    Asked,
    Downloaded,
    Event,
    Failed,
    Finished,
    HeldBack,
    Submitting,
)
from kontext_async.images import ImageSource
from kontext_async.models import (
    Estimate,
    GeneratedImage,
    Generation,
    KontextRequest,
    Outcome,
    RequestLike,
    SessionStatistics,
    TaskProblem,
    TaskState,
    TaskStatus,
    Usage,
)
from kontext_async.settings import Limits, Polling, Retries, Settings, Timeouts
from kontext_async.version import __version__

if TYPE_CHECKING:
    from kontext_async.session import GenerationTask, KontextSession
else:

    def __getattr__(name: str) -> Any:
        """The session is imported when it is first asked for: it brings aiohttp, most of the time of an import."""
        if name not in ("GenerationTask", "KontextSession"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from kontext_async import session  # noqa: PLC0415 # late by intent

        globals()[name] = found = getattr(session, name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "Abandoned",
    "Accepted",
    "Asked",
    "AuthenticationFailed",
    "ConfigurationError",
    "CostLimitReached",
    "DownloadFailed",
    "Downloaded",
    "Estimate",
    "Event",
    "Failed",
    "Finished",
    "GatewayError",
    "GatewayUnavailable",
    "GeneratedImage",
    "Generation",
    "GenerationTask",
    "HeldBack",
    "ImageSource",
    "InvalidRequest",
    "KontextError",
    "KontextRequest",
    "KontextSession",
    "Limits",
    "MalformedAnswer",
    "Outcome",
    "PermissionDenied",
    "Polling",
    "RateLimited",
    "RequestLike",
    "RequestRejected",
    "Retries",
    "SessionClosed",
    "SessionStatistics",
    "Settings",
    "SubmissionUncertain",
    "Submitting",
    "TaskError",
    "TaskFailed",
    "TaskNotFound",
    "TaskProblem",
    "TaskState",
    "TaskStatus",
    "TaskTimeout",
    "Timeouts",
    "Usage",
    "UsageError",
    "__version__",
]
