"""Prompt files: their formats, their rules, and what is reported about invalid lines."""

from __future__ import annotations

import base64
import csv
import io
import json
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from kontext_async import InvalidRequest, KontextRequest
from kontext_async.bulk import (
    InvalidLine,
    ValidationProgress,
    check_image_files,
    lines,
    read_requests,
    validate_requests,
)
from kontext_async.bulk.lines import is_blank

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=60)
PROMPT = TEXT.filter(lambda text: not is_blank(text))
CELL_PROMPT = PROMPT.filter(lambda text: "\t" not in text and not text.startswith('"'))


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def prompts(path: Path, **options: Any) -> list[str]:
    return [request.prompt for request in read_requests(path, **options)]


def only_invalid_line(path: Path) -> InvalidLine:
    (found,) = validate_requests(path).invalid
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prompts")


@settings(max_examples=60, deadline=None)
@given(st.lists(PROMPT, max_size=8), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_a_txt_file_contains_one_verbatim_prompt_per_line(folder: Path, given: list[str], end: str, bom: bool) -> None:  # noqa: FBT001
    content = "".join(f"{prompt}{end}{end}" for prompt in given)
    path = write(folder, "a.txt", content.encode("utf-8-sig" if bom else "utf-8"))
    expected = [
        prompt.removeprefix("\ufeff") if index == 0 and not bom else prompt for index, prompt in enumerate(given)
    ]
    assert prompts(path) == expected


REQUESTS = st.builds(
    KontextRequest,
    CELL_PROMPT,
    seed=st.none() | st.integers(-(10**20), 10**20),
    aspect_ratio=st.none() | st.sampled_from(["1:1", "16:9", "9:21"]),
    output_format=st.none() | st.sampled_from(["jpeg", "png"]),
    prompt_upsampling=st.none() | st.booleans(),
    safety_tolerance=st.none() | st.integers(0, 6),
    model=st.sampled_from(["flux_kontext_pro", "flux_kontext_max"]),
)
COLUMNS = ["prompt", "seed", "aspect_ratio", "output_format", "prompt_upsampling", "safety_tolerance", "model"]


def cells(request: KontextRequest) -> list[str]:
    values = [getattr(request, name) for name in COLUMNS]
    return ["" if value is None else str(value) for value in values]


@settings(max_examples=60, deadline=None)
@given(st.lists(REQUESTS, max_size=5))
def test_requests_survive_a_csv_round_trip(folder: Path, given: list[KontextRequest]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([COLUMNS, *map(cells, given)])
    assert list(read_requests(write(folder, "a.csv", text.getvalue()))) == given


@settings(max_examples=60, deadline=None)
@given(st.lists(REQUESTS, max_size=5))
def test_requests_survive_a_tsv_round_trip(folder: Path, given: list[KontextRequest]) -> None:
    text = "".join("\t".join(row) + "\n" for row in [COLUMNS, *map(cells, given)])
    assert list(read_requests(write(folder, "a.tsv", text))) == given


@settings(max_examples=60, deadline=None)
@given(st.lists(REQUESTS | PROMPT, max_size=5), st.booleans())
def test_requests_survive_a_jsonl_round_trip(folder: Path, given: list[KontextRequest | str], ascii_only: bool) -> None:  # noqa: FBT001
    values = [each if isinstance(each, str) else {name: getattr(each, name) for name in COLUMNS} for each in given]
    text = "".join(json.dumps(value, ensure_ascii=ascii_only) + "\n" for value in values)
    assert list(read_requests(write(folder, "a.jsonl", text))) == [KontextRequest.of(each) for each in given]


def test_quotation_marks_in_tsv_are_ordinary_characters(tmp_path: Path) -> None:
    table = 'Prompt\tCategory\tNote\n"G I G G L E" painted\tWords\t\na "b\tx\ty"\n'
    reader = read_requests(write(tmp_path, "p.TSV", table))
    assert [request.prompt for request in reader] == ['"G I G G L E" painted', 'a "b']
    assert reader.ignored == ("Category", "Note")


def test_csv_records_may_span_lines_and_have_the_number_of_their_first_line(tmp_path: Path) -> None:
    path = write(tmp_path, "p.csv", 'prompt,seed\n"two\nlines",7\n\nthree,x\n')
    report = validate_requests(path)
    assert report.requests == 1
    assert [(each.line, each.field) for each in report.invalid] == [(5, "seed")]
    assert next(read_requests(path)).prompt == "two\nlines"


@pytest.mark.parametrize(("cell", "value"), [("yes", True), ("NO", False), ("1", True), ("0", False), ("True", True)])
def test_tables_accept_several_words_for_true_and_false(tmp_path: Path, cell: str, value: bool) -> None:  # noqa: FBT001
    path = write(tmp_path, "p.csv", f"PROMPT,Prompt_Upsampling\na, {cell} \n")
    assert next(read_requests(path)).prompt_upsampling is value


def test_a_value_of_the_line_overrides_the_default(tmp_path: Path) -> None:
    path = write(tmp_path, "p.jsonl", '{"prompt": "a", "seed": 1, "model": null, "Extra": 2}\n"b"\n')
    reader = read_requests(path, defaults={"seed": 9, "model": "m"})
    assert [(request.seed, request.model) for request in reader] == [(1, "m"), (9, "m")]
    assert reader.ignored == ("Extra",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", "prompt,input_images\na, one.png ; sub/two.png;http://h/x.png\n"),
        ("p.csv", "prompt,input_image_2,input_image,input_image_3\na,sub/two.png,one.png,http://h/x.png\n"),
        ("p.jsonl", '{"prompt": "a", "input_images": ["one.png", "sub/two.png", "http://h/x.png"]}\n'),
        (
            "p.jsonl",
            '{"prompt":"a","input_image":"one.png","input_image_2":"sub/two.png","input_image_3":"http://h/x.png"}',
        ),
    ],
)
def test_input_images_are_relative_to_the_folder_of_the_file(tmp_path: Path, name: str, content: str) -> None:
    (request,) = read_requests(write(tmp_path, name, content))
    assert request.input_images == (tmp_path / "one.png", tmp_path / "sub/two.png", "http://h/x.png")


def test_a_single_image_needs_no_list_in_json(tmp_path: Path) -> None:
    (request,) = read_requests(write(tmp_path, "p.jsonl", '{"prompt": "a", "input_images": "one.png"}'))
    assert request.input_images == (tmp_path / "one.png",)


@pytest.mark.parametrize(
    ("name", "content", "line", "words"),
    [
        ("p.txt", b"good\n\xff\xfe\n", 2, "must be UTF-8"),
        ("p.txt", b"good\n\na\0b\n", 3, "NUL"),
        ("p.jsonl", b'"a"\n{"prompt": \n', 2, "must be JSON: Expecting value at column"),
        ("p.jsonl", b"[1]\n", 1, "an object of fields"),
        ("p.jsonl", b'{"seed": 1}\n', 1, "prompt: None is not allowed"),
        ("p.jsonl", b'{"prompt": "a", "seed": "1"}', 1, "seed: '1' is not allowed; it must be an integer"),
        ("p.jsonl", b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", 1, "without extremely long numbers"),
        ("p.jsonl", b'{"prompt": "a", "Prompt": "b"}', 1, "each field may be given only once"),
        ("p.jsonl", b'{"prompt": "a", "input_images": [7]}', 1, "input_images[0]"),
        ("p.jsonl", b'{"prompt": "a", "input_image": "a", "input_images": ["b"]}', 1, "cannot be combined with"),
        ("p.csv", b"text,seed\na,1\n", 1, "the header must contain a column 'prompt'"),
        ("p.csv", b"prompt,Prompt\na,1\n", 1, "each column name may appear only once"),
        ("p.csv", b"prompt,seed\na,1,2\n", 2, "number of cells: 3 is not allowed; the header has 2"),
        ("p.csv", b"prompt,seed\na,1.5\n", 2, "seed: '1.5'"),
        ("p.csv", b"prompt,prompt_upsampling\na,maybe\n", 2, "true or false"),
        ("p.csv", b"prompt,aspect_ratio\na,5:1\n", 2, "aspect_ratio: '5:1' is not allowed; it must be W:H"),
        ("p.csv", b'prompt\ngood\n"a" b\n', 3, "must be CSV"),
        ("p.csv", b'prompt\n"never closed\nb\n', 2, "must be CSV"),
        ("p.csv", b"prompt\na\xff\n", 2, "must be UTF-8"),
        ("p.csv", b'prompt\n"a\nb\xff\n', 3, "must be UTF-8"),
        ("p.tsv", b"prompt\tseed\n\t1\n", 2, "prompt: '' is not allowed"),
    ],
)
def test_an_invalid_line_is_reported_with_its_number(
    tmp_path: Path, name: str, content: bytes, line: int, words: str
) -> None:
    path = write(tmp_path, name, content)
    error = only_invalid_line(path)
    assert error.line == line
    assert error.path == str(path)
    assert str(error).startswith(f"{path}, line {line}: ")
    assert words in str(error)
    assert isinstance(error, InvalidRequest)
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (twin.line, twin.field, twin.value, str(twin)) == (error.line, error.field, error.value, str(error))


def test_cells_beyond_the_header_may_be_empty_and_rows_may_be_short(tmp_path: Path) -> None:
    assert prompts(write(tmp_path, "p.tsv", "prompt\tseed\na\t1\t\t\nb\n\t\t\n")) == ["a", "b"]


def test_a_line_that_is_too_long_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_LENGTH", 10)
    path = write(tmp_path, "p.txt", "x" * 35 + "\nshort\n" + "y" * 9 + "\n")
    report = validate_requests(path)
    assert report.requests == 2
    assert [(each.line, each.rule) for each in report.invalid] == [(1, "a line may have at most 10 characters")]


def test_reading_continues_after_an_invalid_line(tmp_path: Path) -> None:
    reader = read_requests(write(tmp_path, "p.jsonl", '"a"\n7\n"b"\n'))
    assert next(reader).prompt == "a"
    with pytest.raises(InvalidLine):
        next(reader)
    assert next(reader).prompt == "b"
    assert reader.line == 3


def test_validation_stops_at_the_maximum_number_of_invalid_lines(tmp_path: Path) -> None:
    report = validate_requests(write(tmp_path, "p.jsonl", "7\n" * 50), max_invalid=5)
    assert [each.line for each in report.invalid] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".jsonl"])
def test_validation_reports_how_far_it_is(tmp_path: Path, suffix: str) -> None:
    rows = [json.dumps({"prompt": f"fox {number:080}"}) for number in range(5_000)]
    content = "\n".join(rows if suffix == ".jsonl" else ["prompt", *rows])
    path = write(tmp_path, "p" + suffix, content)
    seen: list[ValidationProgress] = []
    assert validate_requests(path, on_progress=seen.append).requests == 5_000 + (suffix == ".txt")
    size = path.stat().st_size
    assert [each.size for each in seen] == [size] * len(seen)
    places = [each.position for each in seen]
    assert all(64 * 1024 <= later - earlier < 128 * 1024 for earlier, later in pairwise([0, *places]))
    assert size - 128 * 1024 < places[-1] <= size
    assert all(abs(each.line / 5_000 - each.position / size) < 0.1 for each in seen)


def test_a_small_file_is_validated_without_a_report(tmp_path: Path) -> None:
    seen: list[ValidationProgress] = []
    assert validate_requests(write(tmp_path, "p.txt", "a fox\n"), on_progress=seen.append).requests == 1
    assert seen == []


def test_an_error_of_the_receiver_of_reports_ends_the_validation(tmp_path: Path) -> None:
    path = write(tmp_path, "p.txt", "a fox\n" * 100_000)
    seen: list[ValidationProgress] = []

    def receive(progress: ValidationProgress) -> None:
        seen.append(progress)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        validate_requests(path, on_progress=receive)
    assert len(seen) == 1


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".jsonl"])
def test_the_memory_of_a_validation_does_not_depend_on_the_number_of_lines(tmp_path: Path, suffix: str) -> None:
    def measure(count: int) -> int:
        rows = (json.dumps({"prompt": f"fox {number}"}) for number in range(count))
        path = write(tmp_path, f"{count}{suffix}", "\n".join(rows if suffix == ".jsonl" else ["prompt", *rows]))
        tracemalloc.start()
        try:
            validate_requests(path)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    measure(100)  # what is loaded once
    assert measure(5_000) < measure(500) + 50_000


def test_invalid_lines_keep_no_text_as_long_as_an_image(tmp_path: Path) -> None:
    path = write(tmp_path, "p.jsonl", "".join(f'{{"prompt": "fox", "seed": "{"x" * 500_000}"}}\n' for _ in range(10)))
    validate_requests(path)  # what is loaded once
    tracemalloc.start()
    try:
        invalid = validate_requests(path).invalid
        assert tracemalloc.get_traced_memory()[0] < 400_000
    finally:
        tracemalloc.stop()
    assert [each.line for each in invalid] == list(range(1, 11))


def test_the_number_of_remembered_ignored_columns_is_bounded(tmp_path: Path) -> None:
    objects = [{"prompt": "a", f"k{number}": 1} for number in range(150)]
    path = write(tmp_path, "p.jsonl", "\n".join(map(json.dumps, objects)))
    assert len(validate_requests(path).ignored) == 100


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "must be readable: No such file"), (b"", "must not be empty"), (b"hello", "must hold an image")],
)
def test_validation_checks_the_image_files(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        write(tmp_path, "one.png", content)
    write(tmp_path, "good.png", PNG)
    path = write(tmp_path, "p.csv", "prompt,input_images\na,good.png\nb,good.png;one.png\n")
    error = only_invalid_line(path)
    assert (error.line, error.field) == (3, "input_images[1]")
    assert words in str(error)


def test_an_image_file_that_is_too_large_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path, "large.png", PNG)
    with path.open("r+b") as file:
        file.truncate(20 * 1024 * 1024 + 1)
    with pytest.raises(InvalidRequest, match="at most 20971520 bytes"):
        check_image_files(KontextRequest("a", input_images=(str(path),)))
    check_image_files(KontextRequest("a", input_images=("https://h/x.png", PNG)))


def test_a_path_that_is_not_a_prompt_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"one of \.txt, \.jsonl, \.csv, \.tsv"):
        read_requests(tmp_path / "p.xlsx")
    with pytest.raises(InvalidRequest, match="No such file"):
        read_requests(tmp_path / "p.txt")
    (tmp_path / "d.txt").mkdir()
    with pytest.raises(InvalidRequest, match="Is a directory"):
        read_requests(tmp_path / "d.txt")
    with pytest.raises(InvalidRequest, match="regular file"):
        read_requests(_device(tmp_path))


def _device(folder: Path) -> Path:
    path = folder / "null.txt"
    path.symlink_to("/dev/null")
    return path


def test_a_file_that_was_deleted_is_reported_as_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path, "p.txt", "a\n")
    reader = read_requests(path)
    path.unlink()
    with pytest.raises(InvalidRequest, match="must be readable"):
        next(reader)


def test_validation_of_an_unreadable_file_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "p.txt", "a\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InvalidRequest, match="Permission denied"):
        validate_requests(path)


def test_reading_may_stop_early(tmp_path: Path) -> None:
    with read_requests(write(tmp_path, "p.txt", "a\nb\n")) as reader:
        assert next(reader).prompt == "a"
    assert list(reader) == []


def test_a_csv_cell_may_be_as_long_as_the_data_uri_of_a_large_image(tmp_path: Path) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(PNG + bytes(300_000)).decode()}"
    limit = csv.field_size_limit()
    path = write(tmp_path, "p.csv", f'prompt,input_image\na,"{uri}"\nb,\n')
    assert [request.input_images for request in read_requests(path)] == [(uri,), ()]
    assert csv.field_size_limit() == limit, "the limit of the process is as it was"


def test_long_cells_are_read_by_several_threads_at_once(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    long = "x" * 200_000
    path = write(tmp_path, "p.csv", "prompt\n" + f"{long}\n" * 20)
    with ThreadPoolExecutor(8) as threads:
        counts = list(threads.map(lambda _: len(prompts(path)), range(16)))
    assert counts == [20] * 16
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.tsv", "p.jsonl"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    texts = {"p.txt": "a “fox”\r\n狐\r\n", "p.jsonl": '"a “fox”"\r\n"狐"\r\n'}
    text = texts.get(name, "prompt\r\na “fox”\r\n狐\r\n")
    assert prompts(write(tmp_path, name, (mark + text).encode(encoding))) == ["a “fox”", "狐"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe" + "good\n".encode("utf-16-le") + b"\x00\xd8x\x00\n\x00", "must be UTF-8, or UTF-16 with"),
        (b"\xff\xfe" + "good\nb".encode("utf-16-le") + b"x", "save it as UTF-8"),
        ("good\nbad".encode("utf-16-le"), "if the file is UTF-16, save it as UTF-8"),
        ("good\nschön".encode("cp1252"), "save it as UTF-8"),
    ],
)
def test_an_encoding_that_cannot_be_read_is_refused_with_the_way_out(
    tmp_path: Path, content: bytes, words: str
) -> None:
    assert words in str(validate_requests(write(tmp_path, "p.txt", content)).invalid[-1])


@pytest.mark.parametrize(
    "content",
    [
        "prompt;seed;note\r\na, b;7;x\r\n",
        "sep=;\r\nprompt;seed\r\na, b;7\r\n",
        '"sep=;"\r\nprompt;seed\r\na, b;7\r\n',
        'SEP=,\nprompt,seed\n"a, b",7\n',
        "sep=|\nprompt|seed\na, b|7\n",
        "sep=\t\nprompt\tseed\na, b\t7\n",
        "\n\nprompt\tseed\na, b\t7\n",
        '"Prompt";"seed"\n"a, b";"7"\n',
    ],
)
def test_excel_s_separators_are_read(tmp_path: Path, content: str) -> None:
    (request,) = read_requests(write(tmp_path, "p.csv", content))
    assert (request.prompt, request.seed) == ("a, b", 7)


def test_a_comma_separated_file_may_have_semicolons_in_its_prompts(tmp_path: Path) -> None:
    assert prompts(write(tmp_path, "p.csv", "prompt\na; b\n")) == ["a; b"]
    assert prompts(write(tmp_path, "q.csv", "note,prompt\nx;y,a;b\n")) == ["a;b"]


def test_a_line_of_excel_s_separator_counts(tmp_path: Path) -> None:
    error = only_invalid_line(write(tmp_path, "p.csv", "sep=;\nprompt;seed\na;x\n"))
    assert error.line == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", "a\n\x1a"),
        ("p.txt", "a\n\x1a\n"),
        ("p.txt", "a\x1a"),
        ("p.txt", " \x1a \na\n\ufeff\n\u200b\n"),
        ("p.jsonl", '"a"\n\x1a'),
        ("p.csv", "prompt\na\n\x1a"),
        ("p.tsv", "prompt\tseed\na\t1\n\x1a\n"),
    ],
)
def test_a_line_without_a_visible_character_is_no_prompt(tmp_path: Path, name: str, content: str) -> None:
    path = write(tmp_path, name, content)
    assert prompts(path) == ["a"]
    assert validate_requests(path).invalid == ()


def test_a_row_whose_prompt_is_invisible_is_not_paid_for(tmp_path: Path) -> None:
    error = only_invalid_line(write(tmp_path, "p.csv", "prompt,seed\n\x1a,1\n"))
    assert (error.line, error.field) == (2, "prompt")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('prompt\tseed\n"two\nlines"\t7\nthree\t8\n', ["two\nlines", "three"]),
        ('prompt\r\n"two\n\nlines"\r\nthree\r\n', ["two\n\nlines", "three"]),
        ('prompt\tnote\na\t"two\nlines"\nb\tx\n', ["a", "b"]),
        ('prompt\n"a ""b"" c"\n', ['a "b" c']),
        ('prompt\tnote\n"a\tb"\tx\n', ["a\tb"]),
        ('prompt\n"fox"\n', ['"fox"']),
        ('prompt\n"fox" and wolf\n"bear\n', ['"fox" and wolf', '"bear']),
        ('prompt\n"no end\nother "wolf"\n', ['"no end', 'other "wolf"']),
        ('prompt\n"no end\nb\nc', ['"no end', "b", "c"]),
    ],
)
def test_a_tsv_cell_that_excel_quoted_is_one_cell(tmp_path: Path, content: str, expected: list[str]) -> None:
    assert prompts(write(tmp_path, "p.tsv", content)) == expected


def test_a_quotation_mark_without_end_is_ordinary_after_many_lines(tmp_path: Path) -> None:
    lines_after = [f"fox {number}" for number in range(3000)]
    path = write(tmp_path, "p.tsv", "\n".join(["prompt", '"open', *lines_after]))
    assert prompts(path) == ['"open', *lines_after]


def test_a_prompt_file_of_a_relative_path_is_read_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path, "p.csv", "prompt,input_images\na,one.png\n")
    monkeypatch.chdir(tmp_path)
    reader = read_requests("p.csv")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert next(reader).input_images == (tmp_path / "one.png",)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([".txt", ".csv", ".tsv", ".jsonl"]), st.booleans())
def test_any_bytes_are_requests_or_invalid_lines(folder: Path, content: bytes, suffix: str, header: bool) -> None:  # noqa: FBT001
    report = validate_requests(write(folder, f"any{suffix}", b"prompt,seed\n" * header + content))
    assert report.requests >= 0
