"""Result URLs that expire: signs and checks them. Pure: `now` is an argument."""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

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

    def check(self, name: str, query: Mapping[str, str], now: float) -> UrlCheck:
        """Check a URL with that file `name` and that `query` at `now`."""
        expires = query.get("expires", "")
        signature = self._compute_signature(name.partition("/")[0], expires)
        if not hmac.compare_digest(query.get("signature", "").encode(), signature.encode()):
            return UrlCheck.FORGED
        return UrlCheck.GOOD if now < float(expires) else UrlCheck.EXPIRED

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
