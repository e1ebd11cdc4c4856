"""The program that starts Triton's server keeps it running."""

import signal
import subprocess
import sys

from command_line import ROOT

KEEP = "import sys, serve; sys.exit(serve.keep_running(['sh', '-c', *sys.argv[1:]], None))"
FOLDER = ROOT / "export" / "triton"


def test_a_server_that_a_signal_ends_is_started_again(tmp_path):
    crash_once = 'if [ -e "$0" ]; then exit 3; fi; touch "$0"; kill -SEGV $$'
    command = [sys.executable, "-c", KEEP, crash_once, tmp_path / "started"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == "error: signal 11 ended the server\n"


def test_what_ends_the_program_ends_the_server():
    # A server that ends well when it is told to, and one that the signal ends.
    for server, status in (
        ("trap 'exit 0' TERM; echo; while :; do sleep 0.05; done", 0),
        ("echo; exec sleep 60", 128 + signal.SIGTERM),
    ):
        command = [sys.executable, "-c", KEEP, server]
        with subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            process.terminate()
            assert process.wait(30) == status
