"""Many requests from a file."""

from kontext_async.bulk.readers import (
    InvalidLine,
    RequestReader,
    Survey,
    check_image_files,
    read_requests,
    survey_requests,
)

__all__ = ["InvalidLine", "RequestReader", "Survey", "check_image_files", "read_requests", "survey_requests"]
