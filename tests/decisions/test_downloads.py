"""What the head of a response means for a download: the table of `judge`, row by row."""

from __future__ import annotations

import pytest
from attrs import evolve

from kontext_async.decisions.downloads import Part, Verdict, Version, judge, read_head

TAG = '"one"'
PART = Part(size=40, version=Version(tag=TAG, total=100))


@pytest.mark.parametrize(
    ("status", "whole", "rest"),
    [
        (200, Verdict.WHOLE, Verdict.WHOLE),
        (203, Verdict.WHOLE, Verdict.WHOLE),
        (202, Verdict.NOT_READY, Verdict.BEGIN_AGAIN),
        (204, Verdict.NOT_READY, Verdict.BEGIN_AGAIN),
        (404, Verdict.MISSING, Verdict.BEGIN_AGAIN),
        (403, Verdict.EXPIRED, Verdict.BEGIN_AGAIN),
        (410, Verdict.EXPIRED, Verdict.BEGIN_AGAIN),
        (406, Verdict.NOT_ACCEPTABLE, Verdict.BEGIN_AGAIN),
        (416, Verdict.TRANSIENT, Verdict.BEGIN_AGAIN),
        (408, Verdict.TRANSIENT, Verdict.TRANSIENT),
        (425, Verdict.TRANSIENT, Verdict.TRANSIENT),
        (429, Verdict.TRANSIENT, Verdict.TRANSIENT),
        (500, Verdict.TRANSIENT, Verdict.TRANSIENT),
        (599, Verdict.TRANSIENT, Verdict.TRANSIENT),
        (304, Verdict.REFUSED, Verdict.BEGIN_AGAIN),
        (400, Verdict.REFUSED, Verdict.BEGIN_AGAIN),
        (418, Verdict.REFUSED, Verdict.BEGIN_AGAIN),
    ],
)
def test_each_status_has_its_verdict(status: int, whole: Verdict, rest: Verdict) -> None:
    head = read_head(status, {})
    assert judge(head, None) is whole
    assert judge(head, PART) is rest


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({"Content-Range": "bytes 40-99/100", "ETag": TAG}, Verdict.REST),
        ({"Content-Range": "bytes 40-99/100"}, Verdict.REST),
        ({"Content-Range": "bytes 40-60/*"}, Verdict.REST),
        ({"Content-Range": "Bytes  40-99/100", "ETag": 'W/"one"'}, Verdict.REST),
        ({"Content-Range": "bytes 40-99/100", "Last-Modified": "today"}, Verdict.REST),
        ({"Content-Range": "bytes 40-99/100", "ETag": '"two"'}, Verdict.BEGIN_AGAIN),
        ({"Content-Range": "bytes 40-99/101", "ETag": TAG}, Verdict.BEGIN_AGAIN),
        ({"Content-Range": "bytes 39-99/100", "ETag": TAG}, Verdict.BEGIN_AGAIN),
        ({"Content-Range": "bytes 40-99/100", "Content-Encoding": "gzip"}, Verdict.BEGIN_AGAIN),
        ({"Content-Range": "items 40-99/100"}, Verdict.BEGIN_AGAIN),
        ({"Content-Range": "bytes */100"}, Verdict.BEGIN_AGAIN),
        ({}, Verdict.BEGIN_AGAIN),
    ],
)
def test_a_rest_must_fit_the_part(headers: dict[str, str], verdict: Verdict) -> None:
    assert judge(read_head(206, headers), PART) is verdict


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [({"Content-Range": "bytes 0-99/100"}, Verdict.WHOLE), ({"Content-Range": "bytes 1-99/100"}, Verdict.TRANSIENT)],
)
def test_a_range_that_nobody_requested_must_begin_at_0(headers: dict[str, str], verdict: Verdict) -> None:
    assert judge(read_head(206, headers), None) is verdict


@pytest.mark.parametrize(
    ("status", "headers", "total"),
    [
        (200, {"Content-Length": "100"}, 100),
        (200, {"Content-Length": "100", "Content-Encoding": "identity"}, 100),
        (200, {"Content-Length": "100", "Content-Encoding": "br"}, None),
        (200, {"Content-Length": "-1"}, None),
        (200, {"Content-Length": "1" * 5000}, None),
        (200, {}, None),
        (206, {"Content-Length": "60", "Content-Range": "bytes 40-99/100"}, 100),
        (206, {"Content-Length": "60", "Content-Range": "bytes 40-99/*"}, None),
    ],
)
def test_the_total_is_the_size_of_the_whole_file(status: int, headers: dict[str, str], total: int | None) -> None:
    assert read_head(status, headers).version.total == total


@pytest.mark.parametrize(
    ("version", "validator"),
    [
        (Version(tag=TAG, modified="today"), TAG),
        (Version(tag='W/"one"', modified="today"), "today"),
        (Version(tag='W/"one"'), None),
        (Version(modified="today"), "today"),
        (Version(), None),
    ],
)
def test_the_validator_is_a_strong_tag_or_a_date(version: Version, validator: str | None) -> None:
    assert version.validator == validator
    assert evolve(version, is_encoded=True).validator is None
