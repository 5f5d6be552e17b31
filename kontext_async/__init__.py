"""The asyncio-first Python SDK for FLUX.1 Kontext [pro]: one image or thousands, each paid for exactly once."""

from typing import TYPE_CHECKING, Any

from kontext_async.cancellation import Cancellation, CancelOutcome
from kontext_async.errors import (
    AuthenticationFailed,
    CallerLeft,
    ConfigurationError,
    CostLimitReached,
    CostUnknown,
    DownloadFailed,
    GatewayError,
    GatewayOutage,
    GatewayUnavailable,
    InvalidRequest,
    InvalidResponse,
    KontextError,
    Overloaded,
    PermissionDenied,
    RateLimited,
    RequestRejected,
    SessionClosed,
    SessionCrashed,
    SessionError,
    StoreError,
    StoreUnavailable,
    StoreUnusable,
    SubmissionUncertain,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskModerated,
    TaskNotFound,
    TaskTimeout,
    UsageError,
)
from kontext_async.images import ImageSource
from kontext_async.models import (
    Estimate,
    GeneratedImage,
    Generation,
    KontextRequest,
    Outcome,
    RequestFields,
    RequestLike,
    SessionStatistics,
    TaskErrorDetail,
    TaskState,
    TaskStatus,
    Usage,
)
from kontext_async.request_rules import UntrustedRules
from kontext_async.settings import Limits, Network, Outages, Polling, Retries, Settings, StoreSettings, Timeouts
from kontext_async.version import __version__

if TYPE_CHECKING:
    from kontext_async.session import GenerationTask, KontextSession, SessionHealth, Share, Webhook
else:

    def __getattr__(name: str) -> Any:
        """Import the session on first use, because it imports aiohttp, which takes most of the time."""
        if name not in ("GenerationTask", "KontextSession", "SessionHealth", "Share", "Webhook"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from kontext_async import session  # noqa: PLC0415 # late by intent

        globals()[name] = found = getattr(session, name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "AuthenticationFailed",
    "CallerLeft",
    "CancelOutcome",
    "Cancellation",
    "ConfigurationError",
    "CostLimitReached",
    "CostUnknown",
    "DownloadFailed",
    "Estimate",
    "GatewayError",
    "GatewayOutage",
    "GatewayUnavailable",
    "GeneratedImage",
    "Generation",
    "GenerationTask",
    "ImageSource",
    "InvalidRequest",
    "InvalidResponse",
    "KontextError",
    "KontextRequest",
    "KontextSession",
    "Limits",
    "Network",
    "Outages",
    "Outcome",
    "Overloaded",
    "PermissionDenied",
    "Polling",
    "RateLimited",
    "RequestFields",
    "RequestLike",
    "RequestRejected",
    "Retries",
    "SessionClosed",
    "SessionCrashed",
    "SessionError",
    "SessionHealth",
    "SessionStatistics",
    "Settings",
    "Share",
    "StoreError",
    "StoreSettings",
    "StoreUnavailable",
    "StoreUnusable",
    "SubmissionUncertain",
    "TaskCancelled",
    "TaskError",
    "TaskErrorDetail",
    "TaskFailed",
    "TaskModerated",
    "TaskNotFound",
    "TaskState",
    "TaskStatus",
    "TaskTimeout",
    "Timeouts",
    "UntrustedRules",
    "Usage",
    "UsageError",
    "Webhook",
    "__version__",
]
