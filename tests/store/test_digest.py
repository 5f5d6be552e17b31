"""The digest of a request: a URL that is signed again is the same URL, and everything else counts."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, strategies as st

from kontext_async import KontextRequest
from kontext_async.images import LoadedImage
from kontext_async.protocol import fingerprint
from kontext_async.store import digest
from kontext_async.store.digest import FORMS, SignatureForm, remove_signature, request_digest

if TYPE_CHECKING:
    from collections.abc import Iterable


class Signed(NamedTuple):
    """A URL that was signed twice, and what is left of it."""

    first: str
    second: str
    left: str


S3 = "https://inputs.s3.eu-central-1.amazonaws.com/2026/fox.png"
GCS = "https://storage.googleapis.com/inputs/fox.png"
CLOUDFRONT = "https://d111111abcdef8.cloudfront.net/image.jpg"
AZURE = "https://inputs.blob.core.windows.net/images/fox.png"
OSS = "https://inputs.oss-cn-hangzhou.aliyuncs.com/fox.png"
COS = "https://inputs-1250000000.cos.ap-guangzhou.myqcloud.com/fox.png"
TOS = "https://inputs.tos-cn-beijing.volces.com/fox.png"
DISCORD = "https://cdn.discordapp.com/attachments/1012345678900020080/1234567891233211234/fox.png"
SUPABASE = "https://example.supabase.co/storage/v1/object/sign/avatars/fox.png"


def s3(date: str, signature: str, more: str = "") -> str:
    return (
        f"?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD"
        f"&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F{date}%2Feu-central-1%2Fs3%2Faws4_request&X-Amz-Date={date}T101500Z"
        f"&X-Amz-Expires=3600&X-Amz-Security-Token=IQoJb3JpZ2luX2VjE%2F%2F{signature}&X-Amz-Signature={signature * 16}"
        f"&X-Amz-SignedHeaders=host{more}"
    )


def gcs(date: str, signature: str) -> str:
    return (
        f"?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=signer%40project.iam.gserviceaccount.com%2F{date}"
        f"%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date={date}T101500Z&X-Goog-Expires=900"
        f"&X-Goog-SignedHeaders=host&X-Goog-Signature={signature * 32}"
    )


def azure(end: str, signature: str) -> str:
    return (
        f"skoid=11111111-2222-3333-4444-555555555555&sktid=66666666-7777-8888-9999-000000000000"
        f"&skt=2026-11-28T10%3A00%3A00Z&ske={end}&sks=b&skv=2024-11-04&sv=2024-11-04&spr=https"
        f"&st=2026-11-28T10%3A00%3A00Z&se={end}&sr=b&sp=r&sip=168.1.5.60-168.1.5.70&sig={signature}%2Fb%2Bc%3D"
    )


SIGNED = {
    "S3": Signed(S3 + s3("20261128", "1a2b"), S3 + s3("20261129", "3c4d"), S3),
    "S3 of a version": Signed(
        S3 + s3("20261128", "1a2b", "&versionId=7&x-id=GetObject"),
        S3 + s3("20261129", "3c4d", "&versionId=7&x-id=GetObject"),
        S3 + "?versionId=7&x-id=GetObject",
    ),
    "MinIO, in lower case": Signed(
        "http://minio:9000/inputs/fox.png" + s3("20261128", "1a2b").lower(),
        "http://minio:9000/inputs/fox.png" + s3("20261129", "3c4d"),
        "http://minio:9000/inputs/fox.png",
    ),
    "S3, version 2": Signed(
        S3 + "?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D&Expires=1792000000",
        S3 + "?Expires=1793000000&AWSAccessKeyId=ASIAOTHER&Signature=b%2BT1%3D&x-amz-security-token=FQoGZXIv%2F%2F",
        S3,
    ),
    "Google Cloud Storage": Signed(
        GCS + gcs("20261128", "1a2b") + "&generation=42",
        GCS + gcs("20261129", "3c4d") + "&generation=42",
        GCS + "?generation=42",
    ),
    "Google Cloud Storage, version 2": Signed(
        GCS + "?GoogleAccessId=signer@project.iam.gserviceaccount.com&Expires=1792000000&Signature=MCQCTl%2BQ%3D%3D",
        GCS + "?GoogleAccessId=signer@project.iam.gserviceaccount.com&Expires=1793000000&Signature=ZEp0%3D",
        GCS,
    ),
    "CloudFront, canned policy": Signed(
        CLOUDFRONT + "?color=red&Expires=1792000000&Signature=nitfHRCrtziw~yYDhUF5E__&Key-Pair-Id=K2JCJMDEHXQW5F",
        CLOUDFRONT + "?color=red&Expires=1793000000&Signature=ar3U~x&Key-Pair-Id=K2JCJMDEHXQW5F&Hash-Algorithm=SHA256",
        CLOUDFRONT + "?color=red",
    ),
    "CloudFront, custom policy": Signed(
        CLOUDFRONT + "?Policy=eyANCiAgICJTdGF0ZW1lbnQiOiBbeyANCi_&Signature=nitf~y__&Key-Pair-Id=K2JCJMDEHXQW5F",
        CLOUDFRONT + "?Policy=eyANOTHER_&Signature=ar3U~x&Key-Pair-Id=KOTHER&Expires=1793000000",
        CLOUDFRONT,
    ),
    "Google Cloud CDN": Signed(
        "https://media.example.com/fox.png?Expires=1792000000&KeyName=main&Signature=SDd1A5C==",
        "https://media.example.com/fox.png?URLPrefix=aHR0cHM6&Expires=1793000000&KeyName=next&Signature=SDd1-_A=",
        "https://media.example.com/fox.png",
    ),
    "Azure, a user's key": Signed(
        f"{AZURE}?{azure('2026-11-28T11%3A00%3A00Z', 'aaaa')}&rsct=image%2Fjpeg",
        f"{AZURE}?rsct=image%2Fjpeg&{azure('2026-11-29T11%3A00%3A00Z', 'bbbb')}",
        f"{AZURE}?rsct=image%2Fjpeg",
    ),
    "Azure, a stored access policy": Signed(
        AZURE + "?sv=2024-11-04&si=readers&sr=c&sig=Zz%2F1%3D",
        AZURE + "?sv=2025-07-05&si=writers&sr=c&sig=Yy%2B2%3D",
        AZURE,
    ),
    "Azure, an account": Signed(
        AZURE + "?snapshot=2026-01-01T00:00:00Z&sv=2024-11-04&ss=b&srt=o&sp=r&se=2026-11-28&spr=https&sig=Z%3D",
        AZURE + "?snapshot=2026-01-01T00:00:00Z&sv=2024-11-04&ss=bf&srt=sco&sp=rl&se=2026-11-29&sig=Yy%3D",
        AZURE + "?snapshot=2026-01-01T00:00:00Z",
    ),
    "Alibaba OSS": Signed(
        OSS + "?OSSAccessKeyId=LTAI5t&Expires=1792000000&Signature=nefJNa%3D&x-oss-process=image%2Fresize,w_100",
        OSS + "?x-oss-process=image%2Fresize,w_100&OSSAccessKeyId=STS.N&Expires=1&Signature=x%3D&security-token=CAIS",
        OSS + "?x-oss-process=image%2Fresize,w_100",
    ),
    "Alibaba OSS, version 2": Signed(
        OSS + "?x-oss-access-key-id=LTAI&x-oss-expires=1792000000&x-oss-signature=vt%3D&x-oss-signature-version=OSS2",
        OSS
        + "?x-oss-access-key-id=LTAI&x-oss-additional-headers=referer&x-oss-expires=1793000000&x-oss-signature=mp9b%3D"
        + "&x-oss-signature-version=OSS2",
        OSS,
    ),
    "Alibaba OSS, version 4": Signed(
        OSS
        + "?x-oss-credential=LTAI%2F20261128%2Fcn-hangzhou%2Foss%2Faliyun_v4_request"
        + "&x-oss-signature-version=OSS4-HMAC-SHA256&x-oss-date=20261128T101500Z&x-oss-expires=60&x-oss-signature=7d",
        OSS
        + "?x-oss-additional-headers=host&x-oss-credential=LTAI%2F20261129%2Fcn-hangzhou%2Foss%2Faliyun_v4_request"
        + "&x-oss-date=20261129T101500Z&x-oss-expires=3600&x-oss-security-token=CAIS%2F"
        + "&x-oss-signature=99ff&x-oss-signature-version=OSS4-HMAC-SHA256",
        OSS,
    ),
    "Tencent COS": Signed(
        COS
        + "?q-sign-algorithm=sha1&q-ak=AKIDEx&q-sign-time=1792000000%3B1792003600&q-key-time=1792000000%3B1792003600"
        + "&q-header-list=host&q-url-param-list=&q-signature=0123abcd",
        COS
        + "?q-sign-algorithm=sha1&q-ak=AKIDOther&q-sign-time=1793000000%3B1793003600&q-key-time=1793000000%3B1793003600"
        + "&q-header-list=&q-url-param-list=&q-signature=4567cdef&x-cos-security-token=tok",
        COS,
    ),
    "Volcengine TOS": Signed(
        TOS
        + "?X-Tos-Algorithm=TOS4-HMAC-SHA256&X-Tos-Credential=AK%2F20261128%2Fcn-beijing%2Ftos%2Frequest"
        + "&X-Tos-Date=20261128T101500Z&X-Tos-Expires=3600&X-Tos-SignedHeaders=host&X-Tos-Signature=0123"
        + "&x-tos-process=image%2Fresize%2Cw_100",
        TOS
        + "?X-Tos-Algorithm=TOS4-HMAC-SHA256&X-Tos-Credential=AK%2F20261129%2Fcn-beijing%2Ftos%2Frequest"
        + "&X-Tos-Date=20261129T101500Z&X-Tos-Expires=60&X-Tos-SignedHeaders=host&X-Tos-Signature=4567"
        + "&X-Tos-Security-Token=tok&x-tos-process=image%2Fresize%2Cw_100",
        TOS + "?x-tos-process=image%2Fresize%2Cw_100",
    ),
    "Huawei OBS": Signed(
        "https://inputs.obs.eu-de.example.com/fox.png?AccessKeyId=UDSI&Expires=1792000000&Signature=GjmY%3D",
        "https://inputs.obs.eu-de.example.com/fox.png?AccessKeyId=UDSI&Expires=1793000000&Signature=b%3D"
        "&x-obs-security-token=gQpj",
        "https://inputs.obs.eu-de.example.com/fox.png",
    ),
    "Laravel": Signed(
        "https://app.example.com/files/7?expires=1792000000&signature=0a1b2c",
        "https://app.example.com/files/7?expires=1793000000&signature=3d4e5f",
        "https://app.example.com/files/7",
    ),
    "Discord": Signed(
        DISCORD + "?ex=65d903de&is=65c68ede&hm=2481f30dd67f503f54d020ae3b5533b9987fae4e55f2b4e3926e08a3fa3ee24f&",
        DISCORD + "?ex=66d903de&is=66c68ede&hm=99&",
        DISCORD,
    ),
    "Cloudflare Images": Signed(
        "https://imagedelivery.net/cheeW4oKsx5ljh8e8BoL2A/bc27a117/public?exp=1792000000&sig=8d7a",
        "https://imagedelivery.net/cheeW4oKsx5ljh8e8BoL2A/bc27a117/public?exp=1793000000&sig=9e8b",
        "https://imagedelivery.net/cheeW4oKsx5ljh8e8BoL2A/bc27a117/public",
    ),
    "Bunny": Signed(
        "https://zone.b-cdn.net/fox.png?token=DCo8K7&token_path=%2F&expires=1792000000&width=500",
        "https://zone.b-cdn.net/fox.png?token=Ab12&expires=1793000000&width=500",
        "https://zone.b-cdn.net/fox.png?width=500",
    ),
    "Supabase": Signed(SUPABASE + "?token=eyJhbGciOiJIUzI1NiJ9.eyJ1.a", SUPABASE + "?token=eyJ.eyJ.b", SUPABASE),
}

UNSIGNED = {
    "no query": S3,
    "an empty query": S3 + "?",
    "an expiry alone": "https://api.example.com/fox.png?Expires=1792000000",
    "a signature alone": "https://api.example.com/fox.png?Signature=handwritten",
    "a policy alone": "https://api.example.com/fox.png?Policy=strict&Expires=never",
    "a key alone": CLOUDFRONT + "?Key-Pair-Id=K2JCJMDEHXQW5F&Expires=1792000000",
    "S3 without the signature": S3 + "?X-Amz-Algorithm=a&X-Amz-Credential=b&X-Amz-Date=c&X-Amz-Expires=60",
    "S3 with an empty signature": S3 + "?X-Amz-Algorithm=a&X-Amz-Credential=b&X-Amz-Date=c&X-Amz-Signature=",
    "half S3, half Google": S3 + "?X-Amz-Algorithm=a&X-Amz-Credential=b&X-Goog-Date=c&X-Goog-Signature=d",
    "S3's parameters in the fragment": S3 + "#" + s3("20261128", "1a2b"),
    "S3's parameters in a parameter": "https://proxy.example.com/?url=https%3A%2F%2Fs3%2Ffox.png%3FX-Amz-Date%3D1",
    "a name that only begins alike": S3 + s3("20261128", "1a2b").replace("X-Amz-Signature=", "X-Amz-Signatures="),
    "Azure's short names without a resource": "https://api.example.com/fox.png?sv=1&sig=2&se=3&sp=r&st=4",
    "a signature of another API": "https://api.example.com/fox.png?sig=8d7a&sr=b",
    "an expiry and a signature of another API": "https://api.example.com/fox.png?exp=1792000000&sig=8d7a",
    "Discord's names elsewhere": "https://api.example.com/fox.png?ex=1&is=2&hm=3",
    "a host that only ends like Discord's": DISCORD.replace("cdn.", "evil-cdn.") + "?ex=1&is=2&hm=3",
    "a host that only ends like Bunny's": "https://notb-cdn.net/fox.png?token=1&expires=2",
    "a host in the path": "https://api.example.com/imagedelivery.net?exp=1792000000&sig=8d7a",
    "a token that names the file": "https://api.example.com/download?token=5f2b&expires=1792000000",
    "Firebase's token": "https://firebasestorage.googleapis.com/v0/b/app/o/fox.png?alt=media&token=5f2b",
    "Supabase's token that has the size": SUPABASE.replace("object", "render/image") + "?token=eyJ.eyJ3aWR0aCI.a",
    "OSS that only processes": OSS + "?x-oss-process=image%2Fresize,w_100&x-oss-expires=1792000000",
    "odd characters": "https://api.example.com/f%2Fx.png?x=%7E&&y&=z&=&é=|#?a=b",
}


def load_url(url: str) -> LoadedImage:
    return LoadedImage.of_url(url)


def digest_of(*urls: str) -> bytes:
    return request_digest(KontextRequest("a fox", input_images=list(urls)), [load_url(url) for url in urls])


@pytest.mark.parametrize("signed", SIGNED.values(), ids=SIGNED)
def test_a_url_that_is_signed_again_is_the_same(signed: Signed) -> None:
    assert signed.first != signed.second
    assert [remove_signature(signed.first), remove_signature(signed.second)] == [signed.left] * 2
    assert digest_of(signed.first) == digest_of(signed.second)


@pytest.mark.parametrize("signed", SIGNED.values(), ids=SIGNED)
def test_the_path_and_every_other_parameter_of_a_signed_url_count(signed: Signed) -> None:
    path, _, query = signed.first.partition("?")
    for changed in (f"{path}2?{query}", f"{signed.first}&page=2", f"{path}?page=2&{query}"):
        assert digest_of(changed) != digest_of(signed.first)


@pytest.mark.parametrize("url", UNSIGNED.values(), ids=UNSIGNED)
def test_a_url_that_is_not_signed_counts_as_it_is(url: str) -> None:
    assert remove_signature(url) == url
    assert digest_of(url).hex() == fingerprint(KontextRequest("a fox"), [load_url(url)])


FORM_IDS = [" ".join(sorted(form.required)) for form in FORMS]


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_each_form_is_needed_for_a_url_above(form: SignatureForm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "FORMS", tuple(each for each in FORMS if each is not form))
    assert [name for name, signed in SIGNED.items() if remove_signature(signed.second) != signed.left]


def url_of(form: SignatureForm, names: Iterable[str]) -> str:
    host = ("zone" + form.hosts[0] if form.hosts[0].startswith(".") else form.hosts[0]) if form.hosts else "host"
    return f"https://{host}{form.path or '/'}fox.png?" + "&".join(f"{name}=1" for name in names)


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_a_form_covers_all_its_parameters_and_needs_the_required_ones(form: SignatureForm) -> None:
    names = sorted(form.required | form.optional)
    assert "?" not in remove_signature(url_of(form, names))
    for missing in form.required:
        fewer = form.required - {missing}
        url = url_of(form, sorted(fewer))
        if not any(other.required <= fewer for other in FORMS):
            assert remove_signature(url) == url


def test_a_name_may_be_percent_encoded() -> None:
    assert remove_signature(S3 + s3("20261128", "1a2b").replace("X-Amz-", "X%2DAmz%2d")) == S3


def test_the_fragment_of_a_signed_url_stays() -> None:
    assert remove_signature(S3 + s3("20261128", "1a2b") + "#page=2?x") == S3 + "#page=2?x"


def test_each_image_counts_in_its_place() -> None:
    one, again, other = S3 + s3("20261128", "1a2b"), S3 + s3("20261129", "3c4d"), SUPABASE + "?token=a"
    assert digest_of(one, other) == digest_of(again, other) != digest_of(other, one)


def test_the_bytes_of_an_image_count_beside_a_signed_url() -> None:
    request = KontextRequest("a fox")
    digests = {
        request_digest(request, [LoadedImage.of_bytes(data), load_url(S3 + s3(date, "1a2b"))])
        for data in (b"one", b"two")
        for date in ("20261128", "20261129")
    }
    assert len(digests) == 2


def test_a_request_without_a_signed_url_has_its_fingerprint_as_version_1_wrote_it() -> None:
    url = "https://host/a.png?Expires=1"
    request = KontextRequest("ä fox", seed=7, metadata={"b": "2", "a": "1"})
    content = {
        "images": [hashlib.sha256(b"bytes").hexdigest(), hashlib.sha256(url.encode()).hexdigest()],
        "metadata": {"a": "1", "b": "2"},
        "model": "flux_kontext_pro",
        "params": {"prompt": "ä fox", "seed": 7},
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    images = [LoadedImage.of_bytes(b"bytes"), load_url(url)]
    assert request_digest(request, images) == hashlib.sha256(text.encode()).digest()
    assert request_digest(request, []).hex() == fingerprint(request, [])


def test_a_known_fingerprint_is_taken_where_no_url_is_signed() -> None:
    request, known = KontextRequest("a fox"), "ab" * 32
    plain, signed = [LoadedImage.of_bytes(b"x"), load_url(S3)], [load_url(S3 + s3("20261128", "1a2b"))]
    assert request_digest(request, [], fingerprint=known) == bytes.fromhex(known)
    assert request_digest(request, plain, fingerprint=known) == bytes.fromhex(known)
    assert request_digest(request, signed, fingerprint=known) == request_digest(request, signed)


NAMES = st.sampled_from(sorted({name for form in FORMS for name in form.required | form.optional}))
QUERIES = st.lists(st.tuples(NAMES | st.text("aX-?#%=é", max_size=4), st.sampled_from(["", "1", "a%2Fb"])), max_size=9)
BASES = st.sampled_from([S3, SUPABASE, DISCORD, "https://zone.b-cdn.net/x", "https://host/"])


@given(BASES, QUERIES, st.sampled_from(["", "#", "#x?y&z"]))
def test_only_whole_parameters_go_and_nothing_is_left_to_go(base: str, query: list[tuple[str, str]], end: str) -> None:
    url = base + "?" + "&".join(f"{name}={value}" for name, value in query) + end
    left = remove_signature(url)
    assert left == url or len(left) < len(url)
    assert remove_signature(left) == left
    remaining = iter(url.partition("#")[0].partition("?")[2].split("&"))
    assert all(text in remaining for text in left.partition("#")[0].partition("?")[2].split("&") if text)
    assert left.startswith(base)
    assert left.partition("#")[2] == url.partition("#")[2]
