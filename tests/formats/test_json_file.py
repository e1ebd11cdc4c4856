import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_panoptic_fpn.errors import DataError
from tf_panoptic_fpn.formats import json_file
from tf_panoptic_fpn.formats.json_file import list_entries, read_json, read_lists

KEYS = ("images", "annotations", "categories")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
ENTRIES = st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    tree=st.fixed_dictionaries(dict.fromkeys(KEYS, ENTRIES), optional={"info": VALUES}),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 2]),
    window=st.integers(1, 40),
)
def test_entries_are_those_of_the_whole_file(tmp_path_factory, tree, ascii_only, indent, window):
    path = tmp_path_factory.getbasetemp() / "tree.json"
    # A surrogate alone has no UTF-8.
    text = json.dumps(tree, ensure_ascii=ascii_only, indent=indent)
    path.write_bytes(text.encode("utf-8", "replace"))
    expected = json.loads(path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_file, "_WINDOW", window)
        assert read_lists(path, KEYS) == {key: expected[key] for key in KEYS}
        pairs = list(list_entries(path, "annotations"))
    assert [entry for entry, _ in pairs] == expected["annotations"]
    content = path.read_bytes()
    assert [json.loads(content[a:b]) for _, (a, b) in pairs] == expected["annotations"]


@pytest.mark.parametrize("stop", range(1, 61, 3))
def test_a_truncated_file_is_an_error_wherever_it_stops(tmp_path, stop):
    path = tmp_path / "tree.json"
    text = json.dumps({"images": [{"id": 12, "a": [1.5]}], "categories": [{"id": 3}]})
    path.write_text(text[: len(text) * stop // 61])
    with pytest.raises(DataError, match=r"tree.json: (not JSON|must hold)"):
        read_lists(path, ("images",))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not JSON"),
        ('{"images": []} {}', "not JSON: more text behind the object, at character 15"),
        ('{"images": [{}] "categories": []}', "not JSON: Expecting ',', at character 16"),
        ('{"images": [1]}', "`images` must be a list of objects"),
        ('{"images": {}}', "`images` must be a list of objects"),
        ('{"info": 1}', "the key `images` is missing"),
        ("[1]", "must hold a JSON object. Received: list"),
        ('{"images": ' + "[" * 100000, "not JSON: nested too deeply"),
        (b'{"images": [{"a": "\xff"}]}', "not JSON: .*utf-8"),
        ('{"images": [{"a": ' + "1" * 5000 + "}]}", "not JSON"),
    ],
)
def test_faults_are_named(tmp_path, text, fault):
    path = tmp_path / "tree.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=rf"tree.json: ({fault})"):
        read_lists(path, ("images",))


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 2**128 + 1])
@pytest.mark.parametrize("text", ['[{{"id":{}}}]', '[1, {{"id" :\n {}}}]'])
def test_ids_of_any_length_keep_their_digits(tmp_path, number, text):
    path = tmp_path / "file.json"
    path.write_text(text.format(number), encoding="utf-8")
    assert str(number) in json.dumps(read_json(path, list))
