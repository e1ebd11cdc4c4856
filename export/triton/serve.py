"""Starts Triton's server, as PyPI's `nvidia-pytriton` brings it, on an export.

python export/triton/serve.py REPOSITORY [flags of tritonserver, such as --http-port=8000]

It needs neither this package nor Keras, but an environment with NumPy below 2, as the server's
Python backend reads the arrays of later ones wrongly, and with TensorFlow or, of an ONNX file,
onnxruntime and Pillow. A server that a signal ends, as its backend's fault at a request for no
images does, is started again.
"""

import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile

STUB = "triton_python_backend_stub"


def server_command(repository, folder):
    """Returns the command that starts the server, and its environment.

    The Python backend runs in this interpreter's version, with its packages.

    Args:
        repository: path of the folder that `export --format=triton` wrote.
        folder: path of an empty folder, in which the backend is put together.
    """
    found = importlib.util.find_spec("pytriton")
    if found is None or not found.submodule_search_locations:
        sys.exit("error: no server: pip install --no-deps nvidia-pytriton")
    numpy = importlib.metadata.version("numpy")
    if int(numpy.partition(".")[0]) > 1:
        sys.exit(f"error: Triton's Python backend needs numpy below 2. Received: {numpy}")
    package = pathlib.Path(found.submodule_search_locations[0])
    server = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stubs = server / "python_backend_stubs"
    if not (stubs / version / STUB).is_file():
        known = ", ".join(sorted(path.name for path in stubs.iterdir()))
        sys.exit(f"error: Triton's Python backend runs in Python {known}. Received: {version}")
    backend = pathlib.Path(folder) / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    shutil.copy(stubs / version / STUB, backend / STUB)
    program = server / "bin" / "tritonserver"
    for path in (backend / STUB, program):
        path.chmod(path.stat().st_mode | 0o111)
    libraries = [str(package.parent / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")]),
        # By which the backend finds the packages.
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
    }
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    flags = [f"--model-repository={repository}", f"--backend-directory={backend.parent}"]
    return [str(program), *flags], environment


def keep_running(command, environment):
    """Runs the server, and again when a signal has ended it; returns its status."""
    server, ended_by = None, []

    def end(number, _):
        ended_by.append(number)
        if server is not None:
            server.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    while not ended_by:
        server = subprocess.Popen(command, env=environment)
        status = server.wait()
        if status >= 0:
            return status
        print(f"error: signal {-status} ended the server", file=sys.stderr, flush=True)
    return 128 + ended_by[0]


def main():
    if len(sys.argv) < 2 or not (pathlib.Path(sys.argv[1]) / "panoptic_fpn").is_dir():
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="tf_panoptic_fpn_triton_") as folder:
        command, environment = server_command(sys.argv[1], folder)
        sys.exit(keep_running([*command, *sys.argv[2:]], environment))


if __name__ == "__main__":
    main()
