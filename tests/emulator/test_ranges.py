import pytest
from hypothesis import given, strategies as st

from kontext_async.emulator.ranges import Unsatisfiable, parse_range


@given(st.binary(min_size=1, max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_selects_its_bytes_or_is_unsatisfiable(data: bytes, first: int, last: int) -> None:
    try:
        wanted = parse_range(f"bytes={first}-{last}", None, etag="e", size=len(data))
    except Unsatisfiable:
        assert first >= len(data)
    else:
        assert (wanted is None) == (last < first < len(data)) or first >= len(data)
        if wanted is not None:
            assert data[wanted.start : wanted.stop] == data[first : last + 1]


@pytest.mark.parametrize(
    ("header", "if_range", "expected"),
    [
        (None, None, None),
        ("bytes=-", None, None),
        ("bytes=1-2,4-5", None, None),
        ("lines=1-2", None, None),
        ("bytes=2-", None, range(2, 10)),
        ("bytes=-3", None, range(7, 10)),
        ("bytes=-99", None, range(10)),
        ("bytes=2-", "e", range(2, 10)),
        ("bytes=2-", "other", None),
    ],
)
def test_range_headers_are_parsed_or_ignored(header: str | None, if_range: str | None, expected: range | None) -> None:
    assert parse_range(header, if_range, etag="e", size=10) == expected
