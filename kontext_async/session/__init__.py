"""The session and its tasks: the classes that users hold.

=========  ====================================================================================
`session`  `KontextSession`
`share`    `Share`: the methods that send requests; a session is its own default share
`health`   `SessionHealth`, for a readiness check
`call`     one call of `generate` or `submit`: what it submits, and what its deadline means
`caller`   notices that the caller of a request has left
`task`     `GenerationTask`, the handle of an accepted task
=========  ====================================================================================
"""

from kontext_async.gateways import Webhook
from kontext_async.session.call import CallOptions
from kontext_async.session.health import SessionHealth
from kontext_async.session.session import KontextSession
from kontext_async.session.share import Share
from kontext_async.session.task import GenerationTask, RecoveredTask

__all__ = ["CallOptions", "GenerationTask", "KontextSession", "RecoveredTask", "SessionHealth", "Share", "Webhook"]
