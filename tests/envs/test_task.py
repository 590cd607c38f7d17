"""Tasks, rows and sources: what is read, what is refused, and with which words."""

import copy
import gzip
import json
import pickle

import pytest

from collm_envs import DataError, RowFormat, SettingError, Task, TaskSource
from collm_envs.task import FieldError, FrozenDict, load_source, parse_split, read_rows


def _plain(row):
    return {"text": row["text"]}, {}


def _named(row):
    return {"text": row["text"], "size": row["size"]}, {"tests": row["tests"]}


PLAIN = RowFormat({"text": str}, _plain)
NAMED = RowFormat({"text": str, "size": int, "weight": float, "tests": list}, _named, id_column="name")
ROWS = [{"text": f"text {i}"} for i in range(20)]


def write(path, rows=ROWS, text=None):
    text = "".join(json.dumps(row) + "\n" for row in rows) if text is None else text
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def texts(source):
    return [task.public["text"] for task in source]


# -- reading ---------------------------------------------------------------------------------------


def test_every_kind_of_file_gives_the_same_tasks(tmp_path):
    table = "text\n" + "".join(f"{row['text']}\n" for row in ROWS)
    files = [
        write(tmp_path / "a.jsonl"),
        write(tmp_path / "a.jsonl.gz"),
        write(tmp_path / "a.json", text=json.dumps(ROWS)),
        write(tmp_path / "a.json.gz", text=json.dumps(ROWS)),
        write(tmp_path / "a.csv", text=table),
        write(tmp_path / "a.csv.gz", text=table),
        write(tmp_path / "a.v2.jsonl"),
    ]
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    files.append(str(tmp_path / "a.parquet"))
    for file in files:
        source = load_source(file, "all", [PLAIN])
        assert texts(source) == [row["text"] for row in ROWS], file
        assert source[3].id == f"{file.rpartition('/')[2]}#3"


def test_separators_inside_texts_do_not_end_a_row(tmp_path):
    odd = "one\u2028two\u2029three\x85four\x0cfive"
    file = write(tmp_path / "a.jsonl", text=json.dumps({"text": odd}, ensure_ascii=False) + "\n\n")
    assert texts(load_source(file, "all", [PLAIN])) == [odd]
    file = write(tmp_path / "a.csv", text=f'text,other\n{odd},1\n"two\nlines, ""quoted""",2\n')
    assert texts(load_source(file, "all", [PLAIN])) == [odd, 'two\nlines, "quoted"']


def test_a_byte_order_mark_is_not_part_of_the_first_field(tmp_path):
    file = write(tmp_path / "a.csv", text=b"\xef\xbb\xbftext\r\nhello\r\n")
    assert texts(load_source(file, "all", [PLAIN])) == ["hello"]


def test_numbers_and_lists_are_checked_and_a_whole_number_may_stand_for_a_float(tmp_path):
    good = {"name": "n1", "text": "t", "size": 3, "weight": 2, "tests": ["a", "b"]}
    file = write(tmp_path / "a.jsonl", [good])
    task = load_source(file, "all", [NAMED])[0]
    assert (task.id, task.public["size"], task.hidden["tests"]) == ("n1", 3, ("a", "b"))
    for field, bad, wanted in (
        ("size", "3", "expected int, found str"),
        ("size", True, "expected int, found bool"),
        ("weight", False, "expected float, found bool"),
        ("tests", "a", "expected a list of strings, found str"),
        ("tests", ["a", 1], "expected a list of strings, found list"),
        ("tests", [], "empty"),
        ("text", " \n", "empty"),
        ("text", None, "missing"),
    ):
        source = load_source(
            write(tmp_path / "b.jsonl", [good, {**good, "name": "n2", field: bad}]), "all", [NAMED]
        )
        with pytest.raises(DataError, match=rf"b\.jsonl, row 2, field '{field}': {wanted}"):
            source[1]


def _sized(row):
    if row["size"].get("x", 0) < 1:
        raise FieldError("size.x", "must be at least 1")
    return {"x": row["size"]["x"]}, {}


def test_objects_in_a_row_and_what_is_wrong_inside_them(tmp_path):
    sized = RowFormat({"size": dict}, _sized)
    file = write(tmp_path / "a.jsonl", [{"size": {"x": 3}}, {"size": {"x": 0}}, {"size": [3]}])
    source = load_source(file, "all", [sized])
    assert source[0].public["x"] == 3
    with pytest.raises(DataError, match=r"a\.jsonl, row 2, field 'size\.x': must be at least 1"):
        source[1]
    with pytest.raises(DataError, match=r"row 3, field 'size': expected an object, found list"):
        source[2]


def test_a_reader_that_breaks_on_a_row_is_told_with_file_and_row(tmp_path):
    careless = RowFormat({"text": str}, lambda row: ({"text": row["text"], "by": row["author"]}, {}))
    file = write(tmp_path / "a.jsonl", [{"text": "t", "author": "x"}, {"text": "t"}])
    source = load_source(file, "all", [careless])
    with pytest.raises(DataError, match=r"a\.jsonl, row 2: reading it raised KeyError: 'author'"):
        source[1]


def test_a_split_named_twice_is_refused(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"text": "t"}])
    with pytest.raises(SettingError, match="names a split twice"):
        load_source(f"train={file},train={file}", "train", [PLAIN])


def test_the_first_format_that_fits_is_used(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"text": "t", "size": 1, "weight": 1.0, "tests": ["x"]}])
    assert load_source(file, "all", [NAMED, PLAIN])[0].hidden == {"tests": ("x",)}
    assert load_source(file, "all", [PLAIN, NAMED])[0].hidden == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n\n{"text": \n', r"a\.jsonl, row 2 \(line 3\): not JSON"),
        ("a.jsonl", "[1]\n", r"a\.jsonl, row 1: expected an object with named fields, found list"),
        ("a.jsonl", '{"txt": "x"}\n', r"a\.jsonl, row 1: needs the fields \{text\}; found \{txt\}"),
        ("a.jsonl", "", r"a\.jsonl: no rows"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl, row 1 \(line 1\): not JSON"),
        ("a.json", '{"text": "x"}', r"a\.json: expected a list of rows, found dict"),
        ("a.json", "nope", r"a\.json: not JSON"),
        ("a.csv", "text,b,text\nx,1,y\n", r"a\.csv: the header names the field 'text' twice"),
        ("a.csv", "text,b\nx,1\ny\n", r"a\.csv, row 2: has not as many cells"),
        ("a.csv", "text,b\nx,1,2\n", r"a\.csv, row 1: has not as many cells"),
        ("a.csv", 'text\n"open\n', r"a\.csv, row 1: "),
        ("a.jsonl", b'{"text": "caf\xe9"}', r"a\.jsonl: not UTF-8 text \(.* at byte 13\)"),
        ("a.txt", "x", r"a\.txt: unknown kind of file; known: \.jsonl"),
        ("a.parquet", "x", r"a\.parquet: "),
    ],
)
def test_a_bad_file_is_one_line_that_names_it_and_the_row(tmp_path, name, content, message):
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
    file = write(tmp_path / name, text=content)
    with pytest.raises(DataError, match=message):
        load_source(file, "all", [PLAIN])


def test_missing_truncated_and_false_gzip_files(tmp_path):
    with pytest.raises(DataError, match=r"no such file: .*nowhere\.jsonl"):
        read_rows(tmp_path / "nowhere.jsonl")
    whole = gzip.compress(b'{"text": "x"}\n' * 1000)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz: "):
        read_rows(cut)
    damaged = tmp_path / "damaged.jsonl.gz"
    damaged.write_bytes(whole[:12] + bytes(255 - b for b in whole[12:30]) + whole[30:])
    with pytest.raises(DataError, match=r"damaged\.jsonl\.gz: "):
        read_rows(damaged)
    plain = tmp_path / "plain.jsonl.gz"
    plain.write_bytes(b"{}")
    with pytest.raises(DataError, match=r"plain\.jsonl\.gz: "):
        read_rows(plain)


def test_two_rows_of_one_name_are_refused(tmp_path):
    row = {"name": "twin", "text": "t", "size": 1, "weight": 1.0, "tests": ["x"]}
    file = write(tmp_path / "a.jsonl", [row, {**row, "name": "other"}, row])
    with pytest.raises(DataError, match=r"row 3, field 'name': 'twin' also names row 1"):
        load_source(file, "all", [NAMED])


# -- splits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "name", "part"),
    [
        ("train", "train", slice(None)),
        ("train[:1000]", "train", slice(None, 1000)),
        ("test[1000:1100]", "test", slice(1000, 1100)),
        ("dev_2[-5:]", "dev_2", slice(-5, None)),
        ("train[:]", "train", slice(None)),
    ],
)
def test_split_grammar(split, name, part):
    assert parse_split(split) == (name, part)


@pytest.mark.parametrize(
    "split", ["", "train[", "train[1]", "train[a:b]", "train[:10%]", "[1:2]", "train[-:]", 3, "a\n"]
)
def test_splits_that_do_not_parse(split):
    with pytest.raises(SettingError, match="is not a name with an optional slice"):
        parse_split(split)


def test_train_and_test_of_one_file_are_disjoint_and_complete(tmp_path):
    file = write(tmp_path / "a.jsonl")
    train, test = (load_source(file, split, [PLAIN]) for split in ("train", "test"))
    assert (len(train), len(test)) == (18, 2)  # the last tenth of 20
    ids = [task.id for source in (train, test) for task in source]
    assert len(set(ids)) == 20
    assert texts(train) + texts(test) == [row["text"] for row in ROWS]
    assert texts(load_source(file, "train[2:4]", [PLAIN])) == ["text 2", "text 3"]
    assert load_source(file, "test[1:]", [PLAIN])[0].id == "a.jsonl#19"
    assert len(load_source(file, "train[:1000]", [PLAIN])) == 18
    with pytest.raises(DataError, match=r"split 'test\[2:\]' is empty; 'test' has 2 rows"):
        load_source(file, "test[2:]", [PLAIN])
    with pytest.raises(SettingError, match="splits all, train and test, not 'dev'"):
        load_source(file, "dev", [PLAIN])


def test_a_file_of_one_row_is_not_divided(tmp_path):
    file = write(tmp_path / "a.jsonl", ROWS[:1])
    with pytest.raises(DataError, match="cannot be divided"):
        load_source(file, "train", [PLAIN])
    assert len(load_source(file, "all", [PLAIN])) == 1


def test_files_by_split(tmp_path):
    a, b = write(tmp_path / "a.jsonl", ROWS[:3]), write(tmp_path / "b.csv", text="text\nfrom b\n")
    both = f"train={a}, test={b}"
    assert texts(load_source(both, "train", [PLAIN])) == ["text 0", "text 1", "text 2"]
    assert texts(load_source(both, "test", [PLAIN])) == ["from b"]
    with pytest.raises(SettingError, match="names no file for the split 'tset'; did you mean 'test'"):
        load_source(both, "tset", [PLAIN])
    with pytest.raises(SettingError, match="does not read split=file"):
        load_source(f"train={a},{b}", "train", [PLAIN])


def test_an_equals_sign_in_a_path_is_not_a_split(tmp_path):
    folder = tmp_path / "run=3"
    folder.mkdir()
    assert len(load_source(write(folder / "a.jsonl"), "all", [PLAIN])) == 20


def test_built_in_rows_and_what_is_not_there():
    rows = {"train": ROWS[:4], "test": []}
    source = load_source("builtin", "train[1:3]", [PLAIN], builtin=rows.__getitem__)
    assert texts(source) == ["text 1", "text 2"]
    assert source[0].id == "builtin:train#1"
    with pytest.raises(DataError, match="builtin:test: no rows"):
        load_source("builtin", "test", [PLAIN], builtin=rows.__getitem__)
    with pytest.raises(SettingError, match="no built-in tasks"):
        load_source("builtin", "train", [PLAIN])
    with pytest.raises(SettingError, match="no hub data set of its own"):
        load_source("hub", "train", [PLAIN])
    with pytest.raises(SettingError, match="not 7"):
        load_source(7, "train", [PLAIN])


# -- tasks and views -------------------------------------------------------------------------------


def test_a_task_is_frozen_to_the_bottom():
    original = {"words": ["a", {"deep": ["b"]}]}
    task = Task("t", original, {"tests": ["x"]})
    original["words"][1]["deep"].append("changed")
    assert task.public == {"words": ("a", {"deep": ("b",)})}
    inner = task.public["words"][1]
    for change in (
        lambda: task.public.__setitem__("words", 1),
        lambda: inner.update(deep=2),
        lambda: inner.pop("deep"),
        lambda: inner.setdefault("new", 1),
        lambda: inner.__ior__({"new": 1}),
        lambda: task.hidden.clear(),
        lambda: task.hidden.__delitem__("tests"),
        lambda: task.hidden.popitem(),
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    with pytest.raises(AttributeError):
        task.id = "other"
    assert task.public == {"words": ("a", {"deep": ("b",)})}


def test_a_task_pickles_copies_and_hashes_by_value():
    task = Task("t", {"words": ["a"], "map": {"k": 1}})
    again = pickle.loads(pickle.dumps(task))
    assert again == task
    assert hash(again) == hash(task)
    assert type(again.public) is FrozenDict
    assert copy.deepcopy(task).public is task.public
    assert Task("t", {"words": ["b"], "map": {"k": 1}}) != task


def test_slices_and_shuffles_are_views_that_pickle(tmp_path):
    source = load_source(write(tmp_path / "a.jsonl"), "all", [PLAIN])
    part = source[10:0:-3][1:]
    assert texts(part) == ["text 7", "text 4", "text 1"]
    assert part[-1].public["text"] == "text 1"
    with pytest.raises(IndexError):
        part[3]
    mixed = source.shuffle(3)
    assert texts(mixed) != texts(source)
    assert sorted(texts(mixed)) == sorted(texts(source))
    assert texts(mixed) == texts(source.shuffle(3)) != texts(source.shuffle(4))
    assert texts(pickle.loads(pickle.dumps(mixed[:5]))) == texts(mixed[:5])


def test_a_source_over_existing_tasks():
    tasks = [Task(str(i), {"text": str(i)}) for i in range(3)]
    source = TaskSource.of(tasks)
    assert list(source) == tasks
    assert tasks[1] in source
    assert texts(source[::-1]) == ["2", "1", "0"]
