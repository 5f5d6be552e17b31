"""The session and its tasks: the classes that users hold.

=========  ====================================================================================
`session`  `KontextSession`
`call`     one call of `generate` or `submit`: what it submits, and what its deadline means
`task`     `GenerationTask`, the handle of an accepted task
=========  ====================================================================================
"""

from kontext_async.session.call import CallOptions
from kontext_async.session.session import KontextSession
from kontext_async.session.task import GenerationTask, RecoveredTask

__all__ = ["CallOptions", "GenerationTask", "KontextSession", "RecoveredTask"]
