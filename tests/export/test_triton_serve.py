"""The program that starts Triton's server keeps it running."""

import signal
import socket
import subprocess
import sys

import pytest
from command_line import ROOT

pytest.importorskip("aiohttp")
pytest.importorskip("tritonclient.grpc")
KEEP = """import asyncio, pathlib, sys, serve
command = ['sh', '-c', *sys.argv[2:]]
sys.exit(asyncio.run(serve.keep_running(command, None, pathlib.Path(sys.argv[1]))))"""
FOLDER = ROOT / "export" / "triton"


def test_a_server_that_a_signal_ends_is_started_again(tmp_path):
    """Without the sockets that it left."""
    again = "if [ -e started ]; then ls; exit 3; fi"
    crash_once = f'cd "$0"; {again}; touch started socket_http; kill -SEGV $$'
    command = [sys.executable, "-c", KEEP, tmp_path, crash_once, tmp_path]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == "error: signal 11 ended the server\n"
    assert done.stdout == "started\n"


def test_what_ends_the_program_ends_the_server(tmp_path):
    # A server that ends well when it is told to, and one that the signal ends.
    for server, status in (
        ("trap 'exit 0' TERM; echo; while :; do sleep 0.05; done", 0),
        ("echo; exec sleep 60", 128 + signal.SIGTERM),
    ):
        command = [sys.executable, "-c", KEEP, tmp_path, server]
        with subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            process.terminate()
            assert process.wait(30) == status


def test_a_port_that_is_taken_is_named(tmp_path):
    (tmp_path / "panoptic_fpn").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code = (
            "import serve; serve.server_command = lambda *_: (['sleep', '60'], None); serve.main()"
        )
        port = taken.getsockname()[1]
        for flags in (
            ["--http-address=127.0.0.1", f"--http-port={port}"],
            ["--http-port=0", "--grpc-address=127.0.0.1", f"--grpc-port={port}"],
        ):
            command = [sys.executable, "-c", code, tmp_path, *flags]
            done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=60)
            assert done.returncode == 1
            (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            assert str(port) in line and "Traceback" not in done.stderr
