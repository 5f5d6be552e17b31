"""Shows the library's log: on stderr with ``--verbose``, in the file of ``--log-file``, and otherwise nowhere."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from kontext_async.cli.output import to_one_line
from kontext_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kontext_async.cli.output import Output

__all__ = ["show_log"]

LOGGER = logging.getLogger("kontext_async")
NOTHING = logging.CRITICAL + 1
FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(message)s"
OWNER_ONLY = 0o600


class _LineFormatter(logging.Formatter):
    """Formats each record as one line that is safe to print on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return to_one_line(super().format(record))


class _StderrHandler(logging.Handler):
    """Prints records on stderr, above the progress bar if there is one."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output
        self.setFormatter(_LineFormatter(FORMAT, "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        self._output.warn(self.format(record))


class _FileHandler(logging.Handler):
    """Appends records to a file. If it cannot be written any longer, the handler says so once, and stops.

    Raises:
        ConfigurationError: The file cannot be opened.
    """

    def __init__(self, path: Path, output: Output) -> None:
        super().__init__()
        self._path = path
        self._output = output
        self.setFormatter(_LineFormatter(FORMAT, "%Y-%m-%d %H:%M:%S"))
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, OWNER_ONLY)
        except OSError as error:
            raise ConfigurationError(f"--log-file {path} cannot be written: {error.strerror}") from None

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            self.setLevel(NOTHING)
            self._output.warn(f"the log file {self._path} cannot be written any longer: {error.strerror}")

    def close(self) -> None:
        os.close(self._file)
        super().close()


@contextmanager
def show_log(output: Output) -> Iterator[None]:
    """Show the log as the output options say, until the context is left.

    Raises:
        ConfigurationError: The log file cannot be opened.
    """
    handlers: list[logging.Handler] = []
    if output.options.verbose:
        handlers.append(_StderrHandler(output))
    if output.options.log_file is not None:
        handlers.append(_FileHandler(output.options.log_file, output))
    with ExitStack() as stack:
        stack.callback(LOGGER.setLevel, LOGGER.level)
        stack.callback(setattr, LOGGER, "propagate", LOGGER.propagate)
        LOGGER.propagate = False
        LOGGER.setLevel(logging.DEBUG if handlers else NOTHING)
        for handler in handlers:
            stack.callback(handler.close)
            stack.callback(LOGGER.removeHandler, handler)
            LOGGER.addHandler(handler)
        yield
