"""Starts Triton's server, as PyPI's `nvidia-pytriton` brings it, on an export, behind a gate.

python export/triton/serve.py REPOSITORY [--max-request-bytes=67108864] [flags of tritonserver]

It needs neither this package nor Keras, but an environment with NumPy below 2, as the server's
Python backend reads the arrays of later ones wrongly, with aiohttp and tritonclient[grpc], and with
TensorFlow or, of an ONNX file, onnxruntime and Pillow. The gate has the ports, the server two
sockets in a folder of its own. A server that a signal ends is started again.
"""

import argparse
import asyncio
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import signal
import sys
import sysconfig
import tempfile

try:
    import gate
except ImportError as error:
    sys.exit(f"error: {error}: pip install aiohttp 'tritonclient[grpc]'")

STUB = "triton_python_backend_stub"


def server_command(repository, folder):
    """Returns the command that starts the server, and its environment.

    The Python backend runs in this interpreter's version, with its packages.

    Args:
        repository: path of the folder that `export --format=triton` wrote.
        folder: `pathlib.Path` of an empty folder, in which the backend is put together.
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
    backend = folder / "backends" / "python"
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


async def keep_running(command, environment, folder):
    """Runs the server, and again when a signal has ended it; returns its status.

    The sockets in `folder` are those of the server.
    """
    server, ended_by = None, []

    def end(number):
        ended_by.append(number)
        if server is not None and server.returncode is None:
            server.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    while not ended_by:
        for left in folder.glob("socket_*"):
            left.unlink()
        server = await asyncio.create_subprocess_exec(*command, env=environment)
        if ended_by:  # meanwhile
            server.terminate()
        status = await server.wait()
        if status >= 0:
            return status
        print(f"error: signal {-status} ended the server", file=sys.stderr, flush=True)
    return 128 + ended_by[0]


async def serve(arguments, flags, folder):
    """Runs the server behind the gate; returns its status."""
    command, environment = server_command(arguments.repository, folder)
    # gRPC has the port in the name of the file.
    http, grpc = f"{folder}/socket_http", f"{folder}/socket_grpc"
    flags = [
        *(f"--http-address=unix:{http}", f"--grpc-address=unix:{grpc}", "--grpc-port=0"),
        *(f"--metrics-address={arguments.metrics_address or arguments.http_address}", *flags),
    ]
    limit = arguments.max_request_bytes
    async with (
        gate.http_gate(arguments.http_address, arguments.http_port, http, limit),
        gate.grpc_gate(arguments.grpc_address, arguments.grpc_port, f"{grpc}:0", limit),
    ):
        return await keep_running([*command, *flags], environment, folder)


def main():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False, allow_abbrev=False)
    parser.add_argument("repository")
    parser.add_argument("--http-address", default="0.0.0.0")
    parser.add_argument("--http-port", type=int, default=8000)
    parser.add_argument("--grpc-address", default="0.0.0.0")
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-address")
    parser.add_argument("--max-request-bytes", type=int, default=64 << 20)
    arguments, flags = parser.parse_known_args()
    if not (pathlib.Path(arguments.repository) / "panoptic_fpn").is_dir():
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="tf_panoptic_fpn_triton_") as folder:
        try:
            sys.exit(asyncio.run(serve(arguments, flags, pathlib.Path(folder))))
        except (OSError, RuntimeError) as error:  # of the gate: a port is taken
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
