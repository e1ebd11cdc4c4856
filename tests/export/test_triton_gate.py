"""The gate before Triton's server, with stand-ins for the server."""

import asyncio
import gzip
import json
import socket

import pytest
import yarl
from command_line import ROOT

aiohttp = pytest.importorskip("aiohttp")
grpc = pytest.importorskip("grpc")
service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2")

INFER = "/v2/models/m/infer"
HEAD = "Inference-Header-Content-Length"
ONE = b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 1], "data": ["y"]}]}'


@pytest.fixture
def gate(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "export" / "triton")
    import gate

    return gate


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "the body must be JSON"),
        (b"\xff", "the body must be JSON"),
        (ONE[:-1], "the body must be JSON"),
        (b'{"a": ' * 20_000, "the body must be JSON: maximum recursion depth"),
        (b"[1]", r"a request must be an object. Received: \[1\]"),
        (b"{}", "`inputs` must be a list of objects. Received: None"),
        (b'{"inputs": [3]}', r"`inputs` must be a list of objects. Received: \[3\]"),
        (ONE.replace(b'"x"', b"1"), r"`inputs\[0\].name` must be a string. Received: 1"),
        (ONE.replace(b'"BYTES"', b"1"), r"`inputs\[0\].datatype` must be a string. Received: 1"),
        (ONE.replace(b"[1, 1]", b"[1, 0]"), r"integers above 0. Received: \[1, 0\]"),
        (ONE.replace(b"[1, 1]", b"[1, -1]"), r"integers above 0. Received: \[1, -1\]"),
        (ONE.replace(b"[1, 1]", b"[1, true]"), r"integers above 0. Received: \[1, True\]"),
        (ONE.replace(b"[1, 1]", b"[1.0]"), r"integers above 0. Received: \[1.0\]"),
        (ONE.replace(b"[1, 1]", b"1"), "integers above 0. Received: 1"),
        (ONE.replace(b'"shape"', b'"shape": [0, 1], "shape"'), "must differ in name"),
    ],
)
def test_what_is_no_request(gate, body, rule):
    with pytest.raises(gate.Malformed, match=rule) as error:
        gate.check_body(INFER, [], body)
    assert error.value.status == 400 and len(str(error.value)) < 300


def test_the_head_of_a_body_is_as_long_as_it_says(gate):
    body = ONE + b"binary"
    gate.check_body(INFER, [str(len(ONE))], body)
    gate.check_body(INFER, ["0"], b"the only input")
    for lengths in (["-1"], ["x"], [""], ["1.0"], [str(len(body) + 1)], ["9" * 5000], ["3", "3"]):
        with pytest.raises(gate.Malformed, match=f"{HEAD} must be an integer up to the body's"):
            gate.check_body(INFER, lengths, body)
    with pytest.raises(gate.Malformed, match="must be JSON"):
        gate.check_body(INFER, [str(len(ONE) - 1)], body)


def test_other_requests(gate):
    gate.check_body("/v2/repository/index", [], b"")
    gate.check_body("/v2/models/m/generate", [], b'{"x": ["y"]}')
    for path, body, rule in (
        ("/v2/repository/index", b"[" * 20_000, "must be JSON"),
        ("/v2/models/m/generate", b'{"x": []}', "an input must have values"),
        ("/v2/models/m/versions/1/generate_stream", b'{"x": []}', "an input must have values"),
    ):
        with pytest.raises(gate.Malformed, match=rule):
            gate.check_body(path, [], body)
    with pytest.raises(
        gate.TooLarge, match=r"JSON may have 1048576 bytes\. Received: 1048577"
    ) as error:
        gate.check_body("/v2/repository/index", [], b" " * 1048577)
    assert error.value.status == 413


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_http_is_passed_on_as_it_is(gate, tmp_path):
    web, seen = aiohttp.web, []
    parser = {"error": "Unable to parse 'id': attempt to access JSON non-string as string"}

    async def answer(request):
        seen.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        if request.path == "/lost":
            request.transport.close()
        if request.path in ("/parser", "/fault"):
            text = parser if request.path == "/parser" else {"error": "Unable to run"}
            return web.Response(status=500, text=json.dumps(text, separators=(",", ":")))
        headers = {"X-Answer": "b", "Content-Encoding": "gzip"}
        return web.Response(status=418, body=b"as it is", headers=headers)

    async def ask(url, method, path, body=None, headers=None):
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                method, yarl.URL(url + path, encoded=True), data=body, headers=headers
            ) as got,
        ):
            return got.status, got.headers, await got.read()

    async def check():
        server = web.Application(client_max_size=0)
        server.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(server, auto_decompress=False)
        await runner.setup()
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        async with gate.http_gate("127.0.0.1", port, str(tmp_path / "http"), 5_000_000):
            status, _, text = await ask(url, "GET", "/v2/health/ready")
            assert status == 503 and b"the server does not answer" in text
            await web.UnixSite(runner, str(tmp_path / "http")).start()
            status, headers, text = await ask(url, "GET", "/a%2fb?c=%20d", headers={"X-Key": "e"})
            assert (status, headers["X-Answer"], text) == (418, "b", b"as it is")
            method, path, headers, body = seen.pop()
            assert (method, path, headers["X-Key"], body) == ("GET", "/a%2fb?c=%20d", "e", b"")
            large = ONE + bytes(range(256)) * 15_000
            await ask(url, "POST", INFER, large, {HEAD: str(len(ONE))})
            assert seen.pop()[3] == large
            await ask(url, "POST", INFER, gzip.compress(ONE), {"Content-Encoding": "gzip"})
            assert seen[-1][3] == ONE and "Content-Encoding" not in seen.pop()[2]
            for body, headers, expected in (
                (bytes(5_000_001), {}, 413),
                (gzip.compress(bytes(500_000_000)), {"Content-Encoding": "gzip"}, 413),
                (ONE, {"Content-Encoding": "gzip"}, 400),
                (ONE, {"Content-Encoding": "none"}, 418),
                (ONE[1:], {}, 400),
            ):
                assert (await ask(url, "POST", INFER, body, headers))[0] == expected
            assert len(seen) == 1  # the one of 418
            assert (await ask(url, "GET", "/parser"))[::2] == (
                400,
                json.dumps(parser, separators=(",", ":")).encode(),
            )
            assert (await ask(url, "GET", "/fault"))[::2] == (500, b'{"error":"Unable to run"}')
            assert (await ask(url, "GET", "/lost"))[0] == 503
        await runner.cleanup()

    asyncio.run(check())


class Stand(grpc.GenericRpcHandler):
    """A server of gRPC that says what it was asked."""

    def service(self, call):
        if call.method.endswith("ModelStreamInfer"):
            return grpc.stream_stream_rpc_method_handler(self.stream)
        return grpc.unary_unary_rpc_method_handler(self.answer)

    async def answer(self, request, context):
        if request == b"no":
            await context.abort(grpc.StatusCode.NOT_FOUND, "none", (("why", "this"),))
        metadata = dict(context.invocation_metadata())
        return request + metadata.get("key", "").encode() + b"%d" % context.time_remaining()

    async def stream(self, requests, context):
        async for request in requests:
            yield request


def test_grpc_is_passed_on_as_it_is(gate, tmp_path):
    some = service_pb2.ModelInferRequest(model_name="m")
    some.inputs.add(shape=[1, 1])
    none = service_pb2.ModelInferRequest(model_name="m")
    none.inputs.add(shape=[0, 1])
    some, none = some.SerializeToString(), none.SerializeToString()

    async def refused(code, details, call):
        with pytest.raises(grpc.aio.AioRpcError, match=details) as error:
            await call
        assert error.value.code() == code
        return error.value

    async def check():
        port = free_port()
        path = str(tmp_path / "grpc")
        limit = 1_000_000
        codes = grpc.StatusCode
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([Stand()])
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        async with (
            gate.grpc_gate("127.0.0.1", port, path, limit),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            infer, other = channel.unary_unary("/s/ModelInfer"), channel.unary_unary("/s/Other")
            answer = await infer(some, metadata=(("key", "k"),), timeout=99, wait_for_ready=True)
            assert answer.startswith(some + b"k9")
            assert (await other(none, timeout=99)).startswith(none + b"9")
            error = await refused(codes.NOT_FOUND, "none", other(b"no"))
            assert dict(error.trailing_metadata())["why"] == "this"
            await refused(
                codes.INVALID_ARGUMENT, r"integers above 0. Received: \[0, 1\]", infer(none)
            )
            await refused(codes.INVALID_ARGUMENT, "must be a ModelInferRequest", infer(b"\xff"))
            await refused(codes.RESOURCE_EXHAUSTED, "larger than max", infer(bytes(limit + 1)))
            stream = channel.stream_stream("/s/ModelStreamInfer")(iter([some, some, none, some]))
            assert [await stream.read(), await stream.read()] == [some, some]
            await refused(codes.INVALID_ARGUMENT, "integers above 0", stream.read())
        await server.stop(None)

    asyncio.run(check())
