import argparse
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import yaml

from tf_panoptic_fpn.commands import write_records
from tf_panoptic_fpn.config import DataConfig
from tf_panoptic_fpn.data.class_shares import class_shares, class_shares_of_records
from tf_panoptic_fpn.data.index import build_index
from tf_panoptic_fpn.data.pipeline import training_dataset
from tf_panoptic_fpn.data.tfrecords import load_records_index
from tf_panoptic_fpn.errors import ConfigError, DataError
from tf_panoptic_fpn.formats.coco_panoptic import CocoPanopticSplit


def _batches(index, config, **settings):
    dataset = training_dataset(index, config, 2, 4, 0, **settings)
    return [{key: value.numpy() for key, value in batch.items()} for batch in dataset]


def _write(tiny, folder, *arguments):
    """Runs the command on a data set; returns the `DataConfig` that reads what it wrote."""
    paths = {"images": "images", "panoptic_json": "panoptic.json", "panoptic_dir": "panoptic"}
    config = {"data": {"root": str(tiny.images_dir.parent), "train": paths}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    parser = argparse.ArgumentParser()
    write_records.add_arguments(parser)
    files = [f"--config={folder / 'config.yaml'}", f"--output={folder / 'records'}"]
    write_records.run(parser.parse_args([*files, *arguments]))
    train = CocoPanopticSplit(records="records", short_sides=(40, 48), flip_probability=0.5)
    return DataConfig(root=str(folder), train=train)


@pytest.fixture
def five(tiny):
    for size in ((40, 50), (60, 45), (40, 60), (44, 48), (50, 40)):
        tiny.add_plain(*size)
    return tiny


def test_class_shares_of_records_are_those_of_the_files(five, tmp_path):
    expected = class_shares(five.read())
    folder = _write(five, tmp_path).root + "/records"
    shares = class_shares_of_records(load_records_index(folder, "other"), folder)
    np.testing.assert_allclose(shares, expected, rtol=1e-12)


def test_records_equal_the_folder_sample_for_sample(five, tmp_path, capsys):
    index = build_index(five.read())
    config = _write(five, tmp_path, "--shards=3")
    assert capsys.readouterr().out == f"5 images in 3 shards: {tmp_path / 'records'}\n"
    folder_config = config.model_copy(
        update={"train": config.train.model_copy(update={"records": ""})}
    )
    expected = _batches(index, folder_config)
    loaded = load_records_index(config.root + "/records", "other")
    for field in dataclasses.fields(index):
        value = getattr(index, field.name)
        np.testing.assert_array_equal(getattr(loaded, field.name), value, err_msg=field.name)
    batches = _batches(loaded, config, start_step=1)
    for batch, other in zip(batches, expected[1:], strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key], err_msg=key)


def test_a_record_is_an_example_that_others_can_read(five, tmp_path):
    five.read()
    _write(five, tmp_path, "--shards=2")
    paths = sorted((tmp_path / "records").glob("*.tfrecord"))
    assert [path.name for path in paths] == [f"images-0000{i}-of-00002.tfrecord" for i in (0, 1)]
    records = list(tf.data.TFRecordDataset([str(path) for path in paths]))
    assert len(records) == 5
    features = tf.train.Example.FromString(records[1].numpy()).features.feature
    assert features["image"].bytes_list.value[0] == (five.images_dir / "1.png").read_bytes()
    assert features["sizes"].int64_list.value == [60, 45]
    assert features["label_ids"].int64_list.value == [1, 2, 3]
    assert features["instance_map_ids"].int64_list.value == [3]


def test_a_damaged_record_is_replaced(five, tmp_path):
    five.read()
    config = _write(five, tmp_path, "--shards=1")
    (path,) = (tmp_path / "records").glob("*.tfrecord")
    content = bytearray(path.read_bytes())
    place = content.index((five.images_dir / "2.png").read_bytes())
    content[place : place + 2000] = bytes(2000)
    path.write_bytes(content)
    reports = []
    index = load_records_index(str(tmp_path / "records"), "other")
    batches = _batches(index, config, on_damaged=lambda *report: reports.append(report))
    assert len(batches) == 4
    ((image_path, reason),) = reports
    assert image_path.endswith("2.png")
    assert reason.startswith(f"{path}: the record of {image_path} is damaged: ")
    assert "\n" not in reason


def test_errors_are_one_line(five, tmp_path):
    five.read()
    with pytest.raises(ConfigError, match=r"--shards must be 1 or above. Received: 0"):
        _write(five, tmp_path, "--shards=0")
    config = _write(five, tmp_path)
    folder = tmp_path / "records"
    with pytest.raises(DataError, match=r"written with `model.semantic_things: other`.*'all'"):
        load_records_index(str(folder), "all")
    index = load_records_index(str(folder), "other")
    shard = sorted(folder.glob("*.tfrecord"))[-1]
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(DataError, match=rf"{shard}: the file is shorter than `records.npz` says"):
        training_dataset(index, config, 2, 4, 0)
    (folder / "index.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"index.npz: damaged"):
        load_records_index(str(folder), "other")
    with pytest.raises(DataError, match=r"absent/index.npz: cannot be read"):
        load_records_index(str(tmp_path / "absent"), "other")
    (five.images_dir / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1.png: the image file is empty"):
        _write(five, tmp_path)
