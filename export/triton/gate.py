"""What stands before Triton's server: it answers malformed requests, and passes on the rest.

The server, version 2.51, takes what its JSON parser refuses for a fault of its own, 500, and is
ended by a request for no images, and by JSON that is nested 160,000 times.
"""

import contextlib
import functools
import json
import re
import reprlib

import aiohttp
import grpc
from aiohttp import web
from google.protobuf.message import DecodeError
from multidict import CIMultiDict
from tritonclient.grpc import service_pb2
from yarl import URL

HEAD = "Inference-Header-Content-Length"
# Images are not in it but behind it; and reading it takes up to 20 times its size.
MAX_JSON = 1 << 20
# As the server's parser says it, in an answer of 500.
UNREAD = re.compile(
    rb'{"error":"(failed to (parse the request JSON|get request params)|Unable to (parse|set) )'
)
# Headers of a connection; of a request also those of a body before it is decompressed.
OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "upgrade"}
OF_THE_REQUEST = {*OF_THE_CONNECTION, "content-encoding", "content-length", "expect", "host"}


class Malformed(ValueError):
    """A request that is none of the protocol."""

    status = 400


class TooLarge(Malformed):
    """A request that would take too much memory."""

    status = 413


def check_body(path, lengths, body):
    """Checks the body of a request over HTTP.

    Args:
        path: of the URL.
        lengths: list of str, the values of `Inference-Header-Content-Length`.
        body: bytes, decompressed.

    Raises:
        Malformed: if it is none of the protocol, as far as the server itself does not say so.

    Reference: KServe's Open Inference Protocol, version 2, with Triton's extensions
        `binary_tensor_data` and `generate`.
    """
    kind = path.rpartition("/")[2]
    if kind not in ("infer", "generate", "generate_stream"):
        if body:
            _parsed(body)
        return
    if lengths and kind == "infer":
        (length, *more) = lengths
        if more or not re.fullmatch("[0-9]{1,18}", length) or int(length) > len(body):
            raise _fault(f"{HEAD} must be an integer up to the body's {len(body)}", lengths)
        if int(length) == 0 and body:  # the body is the one input
            return
        body = body[: int(length)]
    request = _parsed(body)
    if not isinstance(request, dict):
        raise _fault("a request must be an object", request)
    if kind == "infer":
        _check_inputs(request.get("inputs"))
    elif [] in request.values():
        raise _fault("an input must have values", request)


def _check_inputs(inputs):
    if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
        raise _fault("`inputs` must be a list of objects", inputs)
    for n, one in enumerate(inputs):
        for name in ("name", "datatype"):
            if not isinstance(one.get(name), str):
                raise _fault(f"`inputs[{n}].{name}` must be a string", one.get(name))
        _check_shape(f"inputs[{n}].shape", one.get("shape"))


def _check_shape(name, shape):
    """Of no images the server is ended."""
    if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
        raise _fault(f"`{name}` must be a list of integers above 0", shape)


def _parsed(body):
    if len(body) > MAX_JSON:
        raise TooLarge(f"JSON may have {MAX_JSON} bytes. Received: {len(body)}")
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=_members)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise _fault(f"the body must be JSON: {error}", bytes(body)) from None


def _members(pairs):
    """Of two members of one name this parser takes the last and the server the first."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _fault("the members of an object must differ in name", [name for name, _ in pairs])
    return members


def _fault(rule, value):
    return Malformed(f"{rule}. Received: {reprlib.repr(value)}")


@contextlib.asynccontextmanager
async def http_gate(address, port, server, max_bytes):
    """Listens for HTTP at an address, for the server at the path of a socket.

    Bodies of more than `max_bytes` are refused by 413. While the server is started, what it would
    answer is 503.
    """
    connector = aiohttp.UnixConnector(server, limit=0)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
    ) as session:
        gate = web.Application()
        gate.router.add_route("*", "/{path:.*}", functools.partial(_pass_http, session, max_bytes))
        runner = web.AppRunner(gate, access_log=None, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, address, port).start()
            yield
        finally:
            await runner.cleanup()


async def _pass_http(session, max_bytes, request):
    url = URL.build(
        scheme="http",
        host="server",
        path=request.rel_url.raw_path,
        query_string=request.rel_url.raw_query_string,
        encoded=True,
    )
    try:
        body = await _read(request, max_bytes)
        check_body(url.raw_path, request.headers.getall(HEAD, []), body)
    except Malformed as error:
        return _error(error.status, str(error))
    except web.RequestPayloadError as error:
        return _error(400, f"the body cannot be read: {' '.join(str(error).split())}")
    headers = _without(OF_THE_REQUEST, request)
    try:
        answer = await session.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False
        )
    except aiohttp.ClientError as error:
        return _error(503, f"the server does not answer: {error}")
    async with answer:
        return await _pass_answer(request, answer)


async def _read(request, max_bytes):
    """The body of a request, decompressed."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge(f"a body may have {max_bytes} bytes (--max-request-bytes)")
    return body


async def _pass_answer(request, answer):
    status, text = answer.status, b""
    if status == 500:
        text = await answer.read()
        status = 400 if UNREAD.match(text) else status
    response = web.StreamResponse(status=status, headers=_without(OF_THE_CONNECTION, answer))
    await response.prepare(request)
    await response.write(text)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


def _without(names, message):
    """The headers of a request or answer but for those of some names."""
    return CIMultiDict((k, v) for k, v in message.headers.items() if k.lower() not in names)


def _error(status, text):
    return web.json_response({"error": text}, status=status)


@contextlib.asynccontextmanager
async def grpc_gate(address, port, server, max_bytes):
    """Listens for gRPC as `http_gate` for HTTP; the answer is INVALID_ARGUMENT.

    gRPC itself refuses requests of more than `max_bytes`.
    """
    # The server is found soon after it is started again.
    to_server = [("grpc.max_receive_message_length", -1), ("grpc.max_reconnect_backoff_ms", 1000)]
    to_clients = [("grpc.max_receive_message_length", max_bytes), ("grpc.so_reuseport", 0)]
    async with grpc.aio.insecure_channel(f"unix:{server}", options=to_server) as channel:
        gate = grpc.aio.server(options=to_clients)
        gate.add_generic_rpc_handlers([_GrpcGate(channel)])
        gate.add_insecure_port(f"{address}:{port}")
        await gate.start()
        try:
            yield
        finally:
            await gate.stop(None)


class _GrpcGate(grpc.GenericRpcHandler):
    def __init__(self, channel):
        self._channel = channel

    def service(self, call):
        if call.method.endswith("/ModelStreamInfer"):
            pass_stream = functools.partial(self._pass_stream, call.method)
            return grpc.stream_stream_rpc_method_handler(pass_stream)
        return grpc.unary_unary_rpc_method_handler(functools.partial(self._pass, call.method))

    async def _pass(self, method, request, context):
        try:
            if method.endswith("/ModelInfer"):
                _check_message(request)
            return await self._channel.unary_unary(method)(request, **_terms(context))
        except Malformed as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details(), tuple(error.trailing_metadata()))

    async def _pass_stream(self, method, requests, context):
        """A stream ends at a malformed request, when those before it are answered."""
        malformed = []

        async def checked():
            async for request in requests:
                try:
                    _check_message(request)
                except Malformed as error:
                    malformed.append(str(error))
                    return
                yield request

        try:
            async for answer in self._channel.stream_stream(method)(checked(), **_terms(context)):
                yield answer
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details(), tuple(error.trailing_metadata()))
        if malformed:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, malformed[0])


def _terms(context):
    """Metadata and deadline of a call."""
    metadata = [(k, v) for k, v in context.invocation_metadata() if k != "user-agent"]
    return {"metadata": metadata, "timeout": context.time_remaining()}


def _check_message(message):
    """Raises Malformed unless the bytes are a ModelInferRequest of some images."""
    try:
        request = service_pb2.ModelInferRequest.FromString(message)
    except DecodeError as error:
        raise _fault(f"a request must be a ModelInferRequest: {error}", message) from None
    for n, one in enumerate(request.inputs):
        _check_shape(f"inputs[{n}].shape", list(one.shape))
