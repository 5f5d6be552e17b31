"""The digest of a request: its fingerprint without the signatures of image URLs. Pure.

A job that signs the URL of its input again, with a new time and a new signature, is the same request. So the parameters
that make a signature are left out, but only where the whole set of them is in the query: ``?Expires=2030`` alone may be
a parameter of the image itself. All other parameters count, also those that stand beside a signature and say what the
server sends: ``versionId``, ``response-content-type``, ``x-oss-process``.

A request whose images have no signed URL has its fingerprint as digest, byte for byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from attrs import frozen

from kontext_async import protocol
from kontext_async.images import LoadedImage

if TYPE_CHECKING:
    from collections.abc import Sequence, Set as AbstractSet

    from kontext_async.models import KontextRequest

__all__ = ["remove_signature", "request_digest"]


def request_digest(request: KontextRequest, images: Sequence[LoadedImage], *, fingerprint: str | None = None) -> bytes:
    """Return the digest of a request, 32 bytes.

    Args:
        request: The request.
        images: Its loaded input images.
        fingerprint: Its fingerprint, if it is known already: it is not computed again.
    """
    unsigned = [_without_signature(image) for image in images]
    if fingerprint is None or any(one is not other for one, other in zip(unsigned, images, strict=True)):
        fingerprint = protocol.fingerprint(request, unsigned)
    return bytes.fromhex(fingerprint)


def remove_signature(url: str) -> str:
    """Return a URL without the parameters of its signatures; any other URL as it is, byte for byte."""
    main, hash_mark, fragment = url.partition("#")
    base, _, query = main.partition("?")
    if not query:
        return url
    parameters = [(_name_of(text), text) for text in query.split("&")]
    names = {name for name, text in parameters if text.partition("=")[2]}
    forms = [form for form in FORMS if form.matches(base, names)]
    if not forms:
        return url
    kept = [text for name, text in parameters if text and not any(form.covers(name) for form in forms)]
    return base + ("?" + "&".join(kept) if kept else "") + hash_mark + fragment


def _without_signature(image: LoadedImage) -> LoadedImage:
    """Return the image with the URL that counts; the same object if its URL is not signed, or if it has none."""
    if image.url is None or (unsigned := remove_signature(image.url)) == image.url:
        return image
    return LoadedImage.of_url(unsigned)


def _name_of(parameter: str) -> str:
    return unquote(parameter.partition("=")[0]).lower()


@frozen(kw_only=True)
class SignatureForm:
    """The parameters by which one kind of server signs URLs. Names are in lower case.

    Attributes:
        required: The parameters that a signed URL has; their values are not empty.
        optional: Parameters of the signature that it may have.
        prefix: The beginning of the names of all its parameters; None if they have none in common.
        hosts: The hosts, and domains with a leading dot, that sign so; empty for any host.
        path: A part of the path of a signed URL; empty for any path.
    """

    required: AbstractSet[str]
    optional: AbstractSet[str] = frozenset()
    prefix: str | None = None
    hosts: tuple[str, ...] = ()
    path: str = ""

    def matches(self, base: str, names: AbstractSet[str]) -> bool:
        """Return True if a URL is signed in this form.

        Args:
            base: The URL without its query.
            names: The names of its parameters that have a value.
        """
        return self.required <= names and self.path in base and (not self.hosts or self._is_host_of(base))

    def covers(self, name: str) -> bool:
        """Return True for a parameter of the signature."""
        has_prefix = self.prefix is not None and name.startswith(self.prefix)
        return has_prefix or name in self.required or name in self.optional

    def _is_host_of(self, base: str) -> bool:
        host = urlsplit(base).hostname or ""
        return any(host.endswith(each) if each.startswith(".") else host == each for each in self.hosts)


def _form(required: str, optional: str = "", **rest: str) -> SignatureForm:
    hosts = tuple(rest.pop("hosts", "").split())
    return SignatureForm(
        required=frozenset(required.split()), optional=frozenset(optional.split()), hosts=hosts, **rest
    )


AZURE_OPTIONAL = (
    "st se sp si sip spr ss srt sr srh srq sdd scid ses skoid sktid skt ske sks skv skdutid saoid suoid sduoid"
)

FORMS = (
    # AWS Signature Version 4 (also of R2, MinIO, B2, Spaces, Wasabi, Ceph), and Google Cloud Storage's V4
    _form("x-amz-algorithm x-amz-credential x-amz-date x-amz-signature", prefix="x-amz-"),
    _form("x-goog-algorithm x-goog-credential x-goog-date x-goog-signature", prefix="x-goog-"),
    # version 2 of the same, as Alibaba OSS and Huawei OBS have it, too
    _form("awsaccesskeyid expires signature", "x-amz-security-token"),
    _form("googleaccessid expires signature"),
    _form("ossaccesskeyid expires signature", "security-token"),
    _form("accesskeyid expires signature", "x-obs-security-token"),
    # CloudFront with a canned and with a custom policy; Google Cloud CDN
    _form("expires signature key-pair-id", "hash-algorithm"),
    _form("policy signature key-pair-id", "hash-algorithm"),
    _form("expires keyname signature", "urlprefix"),
    # Laravel's temporary URLs, and others that name no key
    _form("expires signature"),
    # Azure: a shared access signature of a service or with a user's key, and of an account
    _form("sv sr sig", AZURE_OPTIONAL),
    _form("sv ss srt sig", AZURE_OPTIONAL),
    # Alibaba OSS V4 and V2, Tencent COS, Volcengine TOS; their other x-*- parameters process the image
    _form(
        "x-oss-signature-version x-oss-credential x-oss-date x-oss-expires x-oss-signature",
        "x-oss-security-token x-oss-additional-headers",
    ),
    _form(
        "x-oss-signature-version x-oss-access-key-id x-oss-expires x-oss-signature",
        "x-oss-security-token x-oss-additional-headers",
    ),
    _form(
        "q-sign-algorithm q-ak q-sign-time q-key-time q-signature",
        "q-header-list q-url-param-list x-cos-security-token",
    ),
    _form(
        "x-tos-algorithm x-tos-credential x-tos-date x-tos-expires x-tos-signature",
        "x-tos-signedheaders x-tos-security-token x-tos-policy",
    ),
    # short names that mean a signature at these hosts or paths only
    _form("ex is hm", hosts="cdn.discordapp.com media.discordapp.net"),
    _form("exp sig", hosts="imagedelivery.net"),
    _form("token expires", "token_path", hosts=".b-cdn.net"),
    # Supabase; not below render/image/sign/, where the token says how large the image is
    _form("token", path="/storage/v1/object/sign/"),
)
"""The forms of signatures, as the documentation of each server names them."""
