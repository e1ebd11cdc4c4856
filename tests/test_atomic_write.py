"""A file is there whole or as it was."""

import os
import stat
import threading

import pytest

from tf_panoptic_fpn.atomic_write import replacing, write_text


def test_text_is_utf_8_and_nothing_lies_beside(tmp_path):
    write_text(tmp_path / "a.json", "straße\n")
    assert (tmp_path / "a.json").read_bytes() == b"stra\xc3\x9fe\n"
    write_text(tmp_path / "a.json", "again")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "again"


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
        assert partial.parent == tmp_path and partial.suffix == ".json"
        raise KeyboardInterrupt
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_what_is_no_file_is_written_in_place(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    texts = []
    reader = threading.Thread(target=lambda: texts.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    write_text(pipe, "text")
    reader.join()
    assert texts == ["text"] and stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(OSError, match="folder"):
        (tmp_path / "folder").mkdir()
        write_text(tmp_path / "folder", "text")


def test_the_target_of_a_link_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "text"
