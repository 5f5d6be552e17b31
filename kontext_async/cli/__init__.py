"""The command line, ``kontext-async``. It needs the extra ``cli``.

The modules, in the order in which a call passes them:

=================  ==================================================================================
`app`              registers the commands by name, parses the arguments, turns errors into exit codes
`commands`         one module per command, imported only if that command is called
`options`          the options that several commands share
`values`           converts the texts of options: paths, durations, pairs
`secret_files`     reads secrets from files: the API key, the URL of a store
`passwords`        recognizes passwords in URLs, and hides them
`validation`       validates a prompt file before anything is submitted
`signals`          turns SIGINT and SIGTERM into an orderly end
`session`          opens the gateway, or a private emulator, and a session
`each_task`        sends a request about each of several tasks
`save_all`         runs a list of requests and saves their images
`bulk_summary`     prints the plan and the report of a durable run
`progress`         shows progress as occasional lines, or with `progress_bar`
`progress_bar`     shows progress as a live line on a terminal
`progress_counts`  the figures that both show
`outages`          what both say while submitting has stopped
`unsaved_tasks`    keeps the IDs of tasks that are billed but not saved, and reports uncertain requests
`logs`             shows the library's log on stderr or in a file
`streams`          keeps a command alive on standard streams that are closed or full
`output`           prints results on stdout and messages on stderr
`exit_codes`       the exit codes, and which error leads to which
=================  ==================================================================================
"""

from __future__ import annotations

import atexit
import gc
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from kontext_async.cli.streams import open_missing_streams

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command's name and its arguments; None uses those of the process.

    Returns:
        The exit code: 0 all done, 1 some failed, 2 usage error, 3 key or balance, 4 uncertain submissions,
        130 interrupted, 143 terminated.
    """
    open_missing_streams()
    atexit.register(gc.freeze)  # or Python collects all modules' objects before it ends, for a third of a short command
    if missing := [name for name in ("cyclopts", "rich") if find_spec(name) is None]:
        needed = " and ".join(missing)
        sys.stderr.write(f"error: the command line needs {needed}: pip install 'kontext_async[cli]'\n")
        return 2
    from kontext_async.cli.app import run  # noqa: PLC0415 # it needs the extra

    return run(sys.argv[1:] if arguments is None else arguments)
