"""The client of TF Serving, against a server that answers as TF Serving does."""

import base64
import http.server
import json
import threading

import pytest
from command_line import run_here

PNG = b"a panoptic PNG"


@pytest.fixture
def server():
    """A server that keeps what it is sent in `received`, and answers a PNG for each image."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.received.append((self.path, body))
            count = len(body["inputs"]["image_bytes"])
            pngs = [{"b64": base64.b64encode(PNG).decode()}] * count
            self.send_response(200)
            self.end_headers()
            errors = self.server.errors or [""] * count
            answer = {"outputs": {"panoptic_png_bytes": pngs, "error": errors}}
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.received, server.errors = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_client_sends_the_bytes_and_writes_the_pngs(server, tmp_path, monkeypatch):
    images = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for image in images:
        image.write_bytes(image.name.encode())
    url = f"http://127.0.0.1:{server.server_port}"
    arguments = (f"--url={url}", f"--output={tmp_path / 'out'}", *images)
    assert run_here(monkeypatch, "export/tf_serving/client.py", *arguments) == 0
    ((path, body),) = server.received
    assert path == "/v1/models/panoptic_fpn:predict"
    sent = [base64.b64decode(image["b64"]) for image in body["inputs"]["image_bytes"]]
    assert sent == [b"a.jpg", b"b.jpg"]
    written = sorted((tmp_path / "out").iterdir())
    assert [file.read_bytes() for file in written] == [PNG, PNG]


def test_an_image_that_was_not_served_is_named(server, tmp_path, monkeypatch, capsys):
    images = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for image in images:
        image.write_bytes(b"image")
    server.errors = ["", "the image cannot be decoded"]
    url = f"http://127.0.0.1:{server.server_port}"
    arguments = (f"--url={url}", f"--output={tmp_path / 'out'}", *images)
    assert run_here(monkeypatch, "export/tf_serving/client.py", *arguments) == 1
    assert capsys.readouterr().err == f"{images[1]}: the image cannot be decoded\n"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a_panoptic.png"]
