"""``kontext-async generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kontext_async.cli.options import OutputOptions, RequestOptions, RunOptions

__all__ = ["generate"]


async def generate(
    prompts: Annotated[list[str], Parameter(name="PROMPT", required=True)],
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o", metavar="DIR")] = Path(),
    request: RequestOptions | None = None,
    gateway: RunOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Make a picture of each prompt, or edit input images, and print where it is.

    A picture is named after its prompt and its task.

    Args:
        prompts: What to make, or what to change in the input images.
        out: Where the pictures go; it is made when it is missing.
        request: The fields of the requests beside their prompts.
        gateway: Which gateway is asked.
        output: What is printed.
    """
    from kontext_async.bulk.readers import check_image_files  # noqa: PLC0415 # they take their time
    from kontext_async.cli.names import name_by_task  # noqa: PLC0415
    from kontext_async.cli.output import Output  # noqa: PLC0415
    from kontext_async.cli.run import run_requests  # noqa: PLC0415
    from kontext_async.cli.signals import until_terminated  # noqa: PLC0415
    from kontext_async.models import KontextRequest  # noqa: PLC0415

    fields = (request or RequestOptions()).fields()
    requests = [KontextRequest.of(prompt, **fields) for prompt in prompts]
    check_image_files(requests[0])
    return await until_terminated(
        run_requests(
            requests,
            total=len(requests),
            directory=out,
            name=name_by_task,
            options=gateway or RunOptions(),
            output=Output(output or OutputOptions()),
        )
    )
