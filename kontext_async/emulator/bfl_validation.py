"""The strict reading of a create request in Black Forest Labs' dialect. Pure.

Implements "Create: the request" of its protocol page. Unlike the vendor's gateway it takes null for most fields, and
ignores fields that it does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import evolve

from kontext_async.emulator.validation import FIELD_CHECKS, IMAGE_FIELDS, RuleViolation, check_params, parse_json

if TYPE_CHECKING:
    from kontext_async.emulator.validation import CreateRequest

MODELS = {"flux-kontext-pro": "flux_kontext_pro", "flux-kontext-max": "flux_kontext_max"}
"""The models by their path."""

NULLABLE = frozenset({*IMAGE_FIELDS, "seed", "aspect_ratio", "output_format", "webhook_url", "webhook_secret"})
FORMATS = ("jpeg", "png", "webp")
DEFAULT_FORMAT = "png"
MAX_URL_LENGTH = 2083


def parse_bfl_create(body: bytes, model: str) -> CreateRequest:
    """Parse the body of a create request: the bare fields, with the model in the path.

    Raises:
        RuleViolation: The request breaks a rule.
    """
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise RuleViolation("", "must be a JSON object")
    known = {name: value for name, value in fields.items() if name in FIELD_CHECKS or name in NULLABLE}
    for name, value in known.items():
        if value is None and name not in NULLABLE:
            raise RuleViolation(name, "must not be null")
    params = {name: value for name, value in known.items() if value is not None}
    output_format = params.pop("output_format", DEFAULT_FORMAT)
    if output_format not in FORMATS:
        raise RuleViolation("output_format", "must be jpeg, png or webp")
    webhook_url = _check_webhook_url(params.pop("webhook_url", None))
    secret = params.pop("webhook_secret", None)
    if secret is not None and not isinstance(secret, str):
        raise RuleViolation("webhook_secret", "must be a string")
    parsed = check_params(MODELS[model], params, "")
    digest = f"{parsed.digest}-{output_format}"
    return evolve(parsed, output_format=output_format, digest=digest, webhook_url=webhook_url, webhook_secret=secret)


def _check_webhook_url(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_URL_LENGTH:
        raise RuleViolation("webhook_url", f"must be a URL of 1 to {MAX_URL_LENGTH} characters")
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise RuleViolation("webhook_url", "must be an http(s) URL with a host")
    return value
