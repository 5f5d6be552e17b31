"""The root of the error tree and the usage errors, which the ground modules raise.

`kontext_async.errors` draws the whole tree and re-exports these classes. They stand apart because the modules that
`errors` imports (`models`, and `images` through it) raise them.
"""

from __future__ import annotations

from typing import Self, TypeVar

from kontext_async.redaction import clean_text, safe_repr, truncate

__all__ = ["ConfigurationError", "InvalidRequest", "KontextError", "UsageError"]

MESSAGE_LENGTH = 2000
"""The most characters of an error's text, apart from the task ID and the request ID."""

NAME_LENGTH = 120
"""The most characters of an ID or a field name in an error's text."""

PLAIN_CLASSES = frozenset(
    {
        ConnectionRefusedError,
        ConnectionResetError,
        ConnectionError,
        TimeoutError,
        OSError,
        ValueError,
        RuntimeError,
        Exception,
    }
)
"""The built-in classes of causes that became text. An instance of each can be made of a text alone."""


class KontextError(Exception):
    """The root of the error tree.

    Attributes:
        task_id: The task's ID, if there is one.
        reference: The text that leads to the task again, if there is a task. Pass it to `KontextSession.attach`, or to
            ``kontext-async fetch``, to resume the task.
        request_id: The gateway's ID of the HTTP request, if it gave one.
        retryable: True if the same call may succeed when it is made again.
        may_be_charged: True if the gateway may have billed, or may yet bill, what failed.
    """

    reference: str | None = None
    retryable: bool = False
    may_be_charged: bool = False

    def __init__(
        self,
        message: str,
        *,
        task_id: str | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        may_be_charged: bool | None = None,
    ) -> None:
        super().__init__(truncate(message, MESSAGE_LENGTH))
        self.task_id = task_id
        self.request_id = request_id
        if retryable is not None:
            self.retryable = retryable
        if may_be_charged is not None:
            self.may_be_charged = may_be_charged

    def __str__(self) -> str:
        known = (("task", self.task_id), ("request", self.request_id))
        notes = ", ".join(f"{name} {truncate(value, NAME_LENGTH)}" for name, value in known if value)
        text = str(self.args[0])
        return f"{text} ({notes})" if notes else text

    def __reduce__(self) -> tuple[object, ...]:
        return restore, (type(self), self.args, self.__dict__.copy())

    def copy(self) -> Self:
        """Return a copy for one more waiter: raising one exception in two tasks would mix their tracebacks."""
        twin = restore(type(self), self.args, self.__dict__)
        twin.__cause__ = self.__cause__
        return twin

    def redact(self, secret: str) -> Self:
        """Replace `secret` in every text of this error and of its causes; return the error.

        A foreign cause becomes text: exceptions of an HTTP library may refer to the headers of the request.
        """
        self.args = tuple(_clean(value, secret) for value in self.args)
        for name, value in vars(self).items():
            setattr(self, name, _clean(value, secret))
        if self.__cause__:
            self.__cause__ = text_only(self.__cause__, secret)
        if self.__context__:
            self.__context__ = text_only(self.__context__, secret)
        return self

    def with_task(self, task_id: str, reference: str | None = None, *, may_be_charged: bool | None = None) -> Self:
        """Set the task ID and the reference, unless the error has them; return the error."""
        self.task_id = self.task_id or task_id
        if self.task_id == task_id:
            self.reference = self.reference or reference
        if may_be_charged is not None:
            self.may_be_charged = may_be_charged
        return self


ErrorT = TypeVar("ErrorT", bound=KontextError)


def restore(kind: type[ErrorT], args: tuple[object, ...], state: dict[str, object]) -> ErrorT:
    """Rebuild an error from its class, its arguments and its attributes, as `pickle` does."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _clean(value: object, secret: str) -> object:
    return clean_text(value, secret) if isinstance(value, str) else value


def _refers_to_nothing(error: BaseException) -> bool:
    return not vars(error) and error.__cause__ is None and error.__context__ is None


def text_only(error: BaseException, secret: str) -> BaseException:
    """Return an exception that says the same as `error`, but refers to nothing and contains no secret.

    Args:
        error: The exception. One of the tree is redacted and returned itself.
        secret: The API key.

    Returns:
        `error` itself if it is a mere text without the secret; else one of the nearest built-in class, with its text.
    """
    if isinstance(error, KontextError):
        return error.redact(secret)
    text = clean_text(str(error), secret)
    plain = next((base for base in type(error).__mro__ if base in PLAIN_CLASSES), None)
    if plain is None or (error.args == (text,) and _refers_to_nothing(error)):
        return error
    return plain(truncate(text if plain is type(error) else f"{type(error).__name__}: {text}"))


def unwrap_group(error: Exception) -> Exception:
    """Return the first error inside an exception group, or the error itself."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


class UsageError(KontextError):
    """The call is wrong; nothing was sent."""


class InvalidRequest(UsageError, ValueError):
    """The gateway would refuse this request. The library found out before it sent it: nothing is billed.

    Attributes:
        field: The name of the invalid field, such as ``aspect_ratio`` or ``input_images[2]``.
        value: The given value as bounded text; of bytes, only the size.
        rule: The values that are allowed.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        self.field = truncate(field, NAME_LENGTH)
        self.value = safe_repr(value)
        self.rule = truncate(rule)
        super().__init__(f"{self.field}: {self.value} is not allowed; {self.rule}")


class ConfigurationError(UsageError):
    """The API key is missing, a URL is invalid, or settings contradict each other."""
