"""Result URLs that expire: made and checked. Pure: `now` is an argument."""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping


class Verdict(StrEnum):
    """What a result URL is worth."""

    GOOD = "good"
    EXPIRED = "expired"
    FORGED = "forged"


@attrs.frozen(kw_only=True)
class Links:
    """Makes and checks the result URLs of one emulator.

    Attributes:
        origin: The origin that they point to.
        secret: What they are signed with.
        lifetime: Seconds until one expires.
    """

    origin: str
    secret: bytes = attrs.field(repr=False)
    lifetime: float

    def url(self, task_id: str, number: int, extension: str, now: float) -> str:
        """A fresh URL of a task's picture of that `number`; one signature serves all of its pictures."""
        name = f"{task_id}/{number}.{extension}"
        expires = f"{now + self.lifetime:.3f}"
        return f"{self.origin}/results/{name}?expires={expires}&signature={self._sign(task_id, expires)}"

    def check(self, name: str, query: Mapping[str, str], now: float) -> Verdict:
        """What a URL with that file `name` and that `query` is worth at `now`."""
        expires = query.get("expires", "")
        sign = self._sign(name.partition("/")[0], expires)
        if not hmac.compare_digest(query.get("signature", "").encode(), sign.encode()):
            return Verdict.FORGED
        return Verdict.GOOD if now < float(expires) else Verdict.EXPIRED

    def name_in(self, url: str, now: float) -> str | None:
        """The file name in a good URL of this emulator's own; None for any other URL."""
        parts = urlsplit(url)
        prefix = "/results/"
        if f"{parts.scheme}://{parts.netloc}" != self.origin or not parts.path.startswith(prefix):
            return None
        name = parts.path.removeprefix(prefix)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        return name if self.check(name, query, now) is Verdict.GOOD else None

    def _sign(self, task_id: str, expires: str) -> str:
        return hashlib.blake2b(f"{task_id} {expires}".encode(), key=self.secret, digest_size=12).hexdigest()
