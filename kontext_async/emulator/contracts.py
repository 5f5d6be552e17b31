"""The addresses around the gateway that the vendor's newest clients read: models, contracts and the balance. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from kontext_async.emulator.task_json import format_amount
from kontext_async.emulator.validation import IMAGE_FIELDS, MODELS

if TYPE_CHECKING:
    from kontext_async.emulator.task_json import Json

REVISION = "emulator-1"
UNLIMITED_BALANCE = Decimal(1_000_000)


def build_envelope(data: Json) -> Json:
    """Return `data` in the envelope of these addresses."""
    return {"status": {"code": 200, "message": "ok"}, "data": data}


def build_contract(model: str) -> Json:
    """Return the contract of a model: its addresses in the queue dialect, and the schema of its params."""
    path = f"/model/v1/queue/{model}"
    request_path = f"{path}/requests/{{request_id}}"
    return {
        "schema_version": "model-contract.v1",
        "revision": REVISION,
        "model_id": model,
        "display_name": model,
        "protocol": "queue",
        "body_mode": "raw_json",
        "endpoints": {
            "submit": {"method": "POST", "path": path},
            "status": {"method": "GET", "path": f"{request_path}/status"},
            "result": {"method": "GET", "path": f"{request_path}/response"},
            "cancel": {"method": "PUT", "path": f"{request_path}/cancel"},
        },
        "input_schema": {
            "type": "object",
            "required": ["prompt"],
            "additionalProperties": False,
            "properties": {
                "prompt": {"type": "string"},
                **{name: {"type": "string"} for name in IMAGE_FIELDS},
                "seed": {"type": "integer"},
                "aspect_ratio": {"type": "string"},
                "output_format": {"type": "string", "enum": ["jpeg", "png"], "default": "jpeg"},
                "prompt_upsampling": {"type": "boolean", "default": False},
                "safety_tolerance": {"type": "integer", "minimum": 0, "maximum": 6, "default": 2},
            },
        },
    }


def build_model_list() -> Json:
    """Return the list of all models, on one page."""
    models = [
        {"id": model, "model_id": model, "name": model, "type": "image", "has_spec": True, "spec_protocol": "queue"}
        for model in MODELS
    ]
    return {"models": models, "total": len(models), "page": 1, "page_size": len(models), "total_pages": 1}


def build_balance(balance: Decimal | None, recharged: Decimal | None) -> Json:
    """Return the balance of an account, and the balance that it began with; None stands for an unlimited one."""
    left = format_amount(UNLIMITED_BALANCE if balance is None else balance)
    return {
        "user_id": "emulator",
        "balance": left,
        "total_recharged": format_amount(UNLIMITED_BALANCE if recharged is None else recharged),
        "currency": "USD",
        "billing_mode": "prepaid",
        "credit_limit": "0",
        "arrears": "0",
        "available_balance": left,
    }
