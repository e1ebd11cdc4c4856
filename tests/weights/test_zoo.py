"""Downloads from a server on loopback: whole, resumed, truncated, wrong and missing files."""

import dataclasses
import hashlib
import http.server
import json
import threading

import numpy as np
import pytest
from keras import ops

from tf_panoptic_fpn import from_pretrained
from tf_panoptic_fpn.weight_files.download import default_cache_dir, download
from tf_panoptic_fpn.weights import MODEL_ZOO, WeightsError, zoo

CONTENT = bytes(range(256)) * 1000


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` (path -> bytes); keeps the Range of each request in `ranges`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges = {}, []
        self.truncate_at = None  # bytes of an answer after which the connection ends
        self.honours_ranges = True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        requested = self.headers.get("Range")
        server.ranges.append(requested)
        if self.path not in server.files:
            self.send_error(404)
            return
        data = server.files[self.path]
        start = 0
        if requested and server.honours_ranges:
            start = int(requested.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:][: server.truncate_at])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def serve(server, data=CONTENT, name="sha256"):
    digest = hashlib.new(name, data).hexdigest()[:6]
    server.files[f"/model_final_{digest}.pkl"] = data
    return f"{server.url}/model_final_{digest}.pkl"


@pytest.mark.parametrize("name", ["md5", "sha256"])
def test_downloads_once(server, tmp_path, name):
    url = serve(server, name=name)
    path = download(url, tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert download(url, tmp_path / "new") == path
    assert server.ranges == [None]
    assert list(path.parent.iterdir()) == [path]


def test_resumes_a_truncated_file(server, tmp_path):
    url = serve(server)
    server.truncate_at = 1000
    with pytest.raises(WeightsError, match="it ended after 1000 of 256000 bytes; run again"):
        download(url, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    with pytest.raises(WeightsError, match="it ended after 2000 of 256000 bytes"):
        download(url, tmp_path)
    server.truncate_at = None
    assert download(url, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-", "bytes=2000-"]


def test_server_without_ranges(server, tmp_path):
    url = serve(server)
    server.truncate_at = 1000
    with pytest.raises(WeightsError):
        download(url, tmp_path)
    server.truncate_at, server.honours_ranges = None, False
    assert download(url, tmp_path).read_bytes() == CONTENT


def test_partial_file_that_is_complete(server, tmp_path):
    url = serve(server)
    (tmp_path / f"{url.rsplit('/', 1)[1]}.part").write_bytes(CONTENT)
    assert download(url, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_wrong_hash(server, tmp_path):
    server.files["/model_final_000000.pkl"] = CONTENT
    with pytest.raises(WeightsError, match=r"model_final_000000\.pkl: .* hash 000000"):
        download(f"{server.url}/model_final_000000.pkl", tmp_path)
    assert not list(tmp_path.iterdir())


def test_damaged_file_in_the_cache_is_fetched_again(server, tmp_path):
    url = serve(server)
    path = download(url, tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert download(url, tmp_path).read_bytes() == CONTENT


def test_missing_file_and_no_server(server, tmp_path):
    with pytest.raises(WeightsError, match="the server answered 404"):
        download(f"{server.url}/model_final_123abc.pkl", tmp_path)
    with pytest.raises(WeightsError, match="must end in a part of the file's hash"):
        download(f"{server.url}/model.pkl", tmp_path)
    server.server_close()
    with pytest.raises(WeightsError, match="cannot be downloaded: "):
        download(f"{server.url}/model_final_123abc.pkl", tmp_path)


def test_from_pretrained(server, tmp_path, goldens_dir, golden, monkeypatch, capsys):
    """The small golden stands for a published model; its size tells the model."""
    name = "detectron2/panoptic_fpn_R_50_1x"
    data = (goldens_dir / "weights_small.npz").read_bytes()
    url = serve(server, data, "md5")
    entry = dataclasses.replace(MODEL_ZOO[name], path=url.rsplit("/", 1)[1])
    monkeypatch.setitem(zoo.MODEL_ZOO, name, entry)
    model = from_pretrained(name, tmp_path, server.url)
    assert (model.config["num_thing_classes"], model.config["num_stuff_classes"]) == (5, 4)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model.box_head.fc2.kernel), golden["roi_heads.box_head.fc2.weight"].T
    )
    record = json.loads(next((tmp_path / name).glob("*.json")).read_text())
    assert record == {
        "name": name,
        "url": url,
        "metrics": {"PQ": 39.4, "box AP": 37.6, "mask AP": 34.7},
        "dataset": "coco",
        "licence": "CC BY-SA 3.0",
    }
    assert "licence CC BY-SA 3.0; published on COCO: PQ 39.4" in capsys.readouterr().out
    next((tmp_path / name).glob("*.json")).chmod(0o444)  # a cache that others filled
    from_pretrained(name, tmp_path, server.url)
    assert len(server.ranges) == 1


def test_unknown_name():
    with pytest.raises(WeightsError, match="Known: detectron2/panoptic_fpn_R_50_1x"):
        from_pretrained("detectron2/panoptic_fpn_R_18")


def test_entries():
    assert len(MODEL_ZOO) == 8
    for name, entry in MODEL_ZOO.items():
        folder, config, _, file = entry.path.split("/")
        assert name == f"detectron2/{config}"
        assert folder.startswith(("COCO-", "Misc")) and file.startswith("model_final_")
        assert entry.licence == "CC BY-SA 3.0"
        assert entry.dataset == "coco"


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "tf_panoptic_fpn"
