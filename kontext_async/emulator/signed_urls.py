"""Result URLs that expire: signs and checks them. Pure: `now` is an argument."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping


class UrlCheck(StrEnum):
    """The result of checking a result URL."""

    GOOD = "good"
    EXPIRED = "expired"
    FORGED = "forged"


@frozen(kw_only=True)
class UrlSigner:
    """Signs and checks the result URLs of one emulator.

    Attributes:
        origin: The origin of the URLs.
        secret: The key of the signatures.
        lifetime: Seconds until a URL expires.
    """

    origin: str
    secret: bytes = field(repr=False)
    lifetime: float

    def sign(self, task_id: str, number: int, extension: str, now: float) -> str:
        """Return a new URL of the task's image of that `number`; one signature serves all images of a task."""
        name = f"{task_id}/{number}.{extension}"
        expires = f"{now + self.lifetime:.3f}"
        return f"{self.origin}/results/{name}?expires={expires}&signature={self._compute_signature(task_id, expires)}"

    def sign_to_the_second(self, task_id: str, number: int, extension: str, signed_at: float) -> str:
        """Return a URL as Azure writes it: its expiry is a time in its query, `se`, without a fraction."""
        name = f"{task_id}/{number}.{extension}"
        moment = datetime.fromtimestamp(int(signed_at + self.lifetime), UTC)
        expires = moment.isoformat().replace("+00:00", "Z")
        signature = self._compute_signature(task_id, expires)
        query = f"se={quote(expires, safe='')}&sp=r&sv=2024-11-04&sr=b&rsct=image/{extension}&sig={signature}%3D"
        return f"{self.origin}/results/{name}?{query}"

    def check(self, name: str, query: Mapping[str, str], now: float) -> UrlCheck:
        """Check a URL with that file `name` and that `query` at `now`."""
        is_azure = "se" in query
        expires = query["se"] if is_azure else query.get("expires", "")
        given = query.get("sig", "").removesuffix("=") if is_azure else query.get("signature", "")
        signature = self._compute_signature(name.partition("/")[0], expires)
        if not hmac.compare_digest(given.encode(), signature.encode()):
            return UrlCheck.FORGED
        expires_at = datetime.fromisoformat(expires).timestamp() if is_azure else float(expires)
        return UrlCheck.GOOD if now < expires_at else UrlCheck.EXPIRED

    def extract_name(self, url: str, now: float) -> str | None:
        """Return the file name of a good URL of this emulator; None for any other URL."""
        parts = urlsplit(url)
        prefix = "/results/"
        if f"{parts.scheme}://{parts.netloc}" != self.origin or not parts.path.startswith(prefix):
            return None
        name = parts.path.removeprefix(prefix)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        return name if self.check(name, query, now) is UrlCheck.GOOD else None

    def _compute_signature(self, task_id: str, expires: str) -> str:
        return hashlib.blake2b(f"{task_id} {expires}".encode(), key=self.secret, digest_size=12).hexdigest()
