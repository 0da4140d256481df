"""Applications over HTTP: bodies, streams, websockets, FastAPI, limits, and what clients get wrong."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import select
import socket
import threading
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from fastapi import FastAPI, WebSocket
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router as StarletteRouter
from web_load import ask, ask_over, keep_alive, raw

import shoal
from shoal_ml import serve

NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
app = FastAPI()


@serve.deployment(max_ongoing_requests=100)
async def echo(request: Request):
    body = await request.body()
    return JSONResponse({"method": request.method, "path": request.url.path, "nbytes": len(body)})


@serve.deployment
class Model:
    def __call__(self, x: np.ndarray):
        return x * 2


@serve.deployment
async def anything(body: object | None):
    return body


@serve.deployment
class Streams:
    async def __call__(self, request: Request):
        for word in ("one ", "two ", "three"):
            yield word


@serve.deployment(max_ongoing_requests=10)
@serve.ingress(app)
class Fast:
    def __init__(self, factor):
        self.factor = factor

    @app.get("/times/{x}")
    def times(self, x: int, plus: int = 0) -> dict[str, int]:
        return {"result": x * self.factor + plus}

    @app.post("/sum")
    async def sum(self, numbers: list[float]) -> float:
        return sum(numbers)

    @app.get("/who")
    async def who(self):
        return serve.get_replica_context().deployment, serve.current_request().request_id

    @app.websocket("/chat")
    async def chat(self, websocket: WebSocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(f"{self.factor}:{text}")


@pytest.fixture(scope="module")
def served(url):
    """Several applications, that most tests share."""
    serve.run(echo.bind(), name="echo", route_prefix="/echo")
    serve.run(Model.bind(), name="model", route_prefix="/model")
    serve.run(Streams.bind(), name="streams", route_prefix="/streams")
    serve.run(Fast.bind(3), name="fast", route_prefix="/fast")
    yield url
    for name in ("echo", "model", "streams", "fast"):
        serve.delete(name)


def npy(array):
    target = io.BytesIO()
    np.save(target, array)
    return target.getvalue()


def test_routes_and_health(served):
    assert ask(served + "/-/healthz").json == {"status": "ok"}
    assert ask(served + "/-/routes").json["/echo"] == "echo"
    assert ask(served + "/echo/deeper?x=1").json["path"] == "/echo/deeper"
    assert serve.status().application("echo").url == served + "/echo"
    reply = ask(served + "/echoes")
    assert reply.status == 404 and "error" in reply.json and reply.json["request_id"]


def test_json_numpy_and_bytes(served):
    assert ask(served + "/model", b"[1, 2]", headers={"content-type": "application/json"}).status == 200
    reply = ask(served + "/model", npy(np.arange(3)), headers={"content-type": NPY})
    assert reply.json == [0, 2, 4]
    reply = ask(served + "/model", npy(np.arange(3)), headers={"content-type": NPY, "accept": NPY})
    assert np.array_equal(np.load(io.BytesIO(reply.body)), [0, 2, 4]) and reply.headers["content-type"] == NPY


@pytest.mark.usefixtures("applications")
def test_bodies_come_back_as_they_are(url):
    serve.run(anything.bind(), route_prefix="/any")
    value = {"a": [1, None, "ü"], "b": {"c": 2.5}}
    reply = ask(url + "/any", json.dumps(value).encode(), headers={"content-type": "application/json"})
    assert reply.json == value
    reply = ask(url + "/any", b"\x00\xff", headers={"content-type": "application/octet-stream"})
    assert reply.body == b"\x00\xff"
    table, sink = pa.table({"x": [1, 2, 3]}), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    reply = ask(url + "/any", sink.getvalue(), headers={"content-type": ARROW})
    assert pa.ipc.open_stream(reply.body).read_all() == table


def test_streams_arrive_in_pieces(served):
    reply = ask(served + "/streams")
    assert reply.body == b"one two three" and reply.headers["transfer-encoding"] == "chunked"


def test_fastapi_methods_get_their_instance(served):
    assert ask(served + "/fast/times/5?plus=1").json == {"result": 16}
    assert ask(served + "/fast/times/abc").status == 422
    body = json.dumps([1, 2, 3.5]).encode()
    assert ask(served + "/fast/sum", body, headers={"content-type": "application/json"}).json == 6.5
    reply = ask(served + "/fast/who", headers={"x-request-id": "mine-1"})
    assert reply.json == ["Fast", "mine-1"] and reply.headers["x-request-id"] == "mine-1"
    assert ask(served + "/fast/openapi.json").status == 200


def test_websockets(served):
    import websockets.asyncio.client as client

    async def talk():
        async with client.connect(served.replace("http", "ws") + "/fast/chat") as socket:
            await socket.send("hello")
            return await socket.recv()

    assert asyncio.run(talk()) == "3:hello"


def test_one_connection_reaches_several_applications(served):
    with keep_alive(served) as connection:
        for _ in range(3):
            assert ask_over(connection, "/echo", b"abc").json["nbytes"] == 3
            assert ask_over(connection, "/fast/times/2").json == {"result": 6}
            assert ask_over(connection, "/streams").body == b"one two three"
            assert ask_over(connection, "/nowhere").status == 404


def test_a_client_that_leaves_cancels_its_request(url, applications):
    @shoal.remote
    class Record:
        def __init__(self):
            self.events = {name: asyncio.Event() for name in ("begun", "cancelled")}

        async def set(self, name):
            self.events[name].set()

        async def wait(self, name):
            await self.events[name].wait()

    record = Record.options(name="record", namespace="shoal-test", lifetime="detached").remote()

    @serve.deployment
    async def slow(request: Request):
        record = await asyncio.to_thread(shoal.get_actor, "record", "shoal-test")
        record.set.remote("begun")
        try:
            await asyncio.Event().wait()
        finally:
            record.set.remote("cancelled")

    serve.run(slow.bind(), route_prefix="/slow")
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port)) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        shoal.get(record.wait.remote("begun"), 20)
    shoal.get(record.wait.remote("cancelled"), 20)
    shoal.kill(record)


@pytest.mark.usefixtures("applications")
def test_a_request_that_takes_too_long_is_cancelled(url):
    @serve.deployment(request_timeout_s=0.05)
    async def never(request: Request):
        await asyncio.Event().wait()

    serve.run(never.bind(), route_prefix="/never")
    reply = ask(url + "/never")
    assert reply.status == 504 and "too long" in reply.json["error"]


@pytest.mark.usefixtures("applications")
def test_too_many_requests_are_told_when_to_come_back(url):
    @serve.deployment(max_ongoing_requests=1, max_queued_requests=0, retry_after_s=7, graceful_shutdown_timeout_s=0.1)
    async def never(request: Request):
        await asyncio.Event().wait()

    serve.run(never.bind(), route_prefix="/never")
    where = urlsplit(url)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection((where.hostname, where.port))) for _ in range(2)]
        for sock in socks:
            sock.sendall(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
        (refused,), _, _ = select.select(socks, [], [], 20)
        answer = refused.recv(4096)
    assert status_of(answer) == 503 and b"\r\nretry-after: 7\r\n" in answer


@pytest.mark.usefixtures("applications")
def test_an_application_that_fails_says_so_and_nothing_more(url):
    @serve.deployment
    def fails(request: Request):
        raise ValueError("the password is 1234")

    serve.run(fails.bind(), route_prefix="/fails")
    reply = ask(url + "/fails")
    assert reply.status == 500 and b"1234" not in reply.body and reply.json["request_id"]


@pytest.mark.usefixtures("applications")
def test_any_asgi_app_made_in_the_replica(url):
    def make(instance):
        async def answer(request):
            return PlainTextResponse(f"{instance.word} {request.path_params['name']}")

        return StarletteRouter([StarletteRoute("/hi/{name}", answer)])

    @serve.deployment
    @serve.ingress(make)
    class Greeter:
        word = "hello"

    serve.run(Greeter.bind(), route_prefix="/greet")
    assert ask(url + "/greet/hi/bob").body == b"hello bob"


# -- what clients get wrong ----------------------------------------------------------------------------------------


def status_of(answer):
    return int(answer.split(b" ", 2)[1]) if answer else 0


CHUNK = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"
HEAD = b"Host: x\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /echo HTTP/9.9\r\n" + HEAD + b"\r\n", 400),
        (b"GET /echo HTTP/1.1\r\n" + HEAD + b"bad header\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\n" + HEAD + b"Content-Length: nine\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\n" + HEAD + b"Content-Length: 99999999999\r\n\r\n", 413),
        (b"POST /echo HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK * 5 + b"0\r\n\r\n", 413),
        (b"GET /echo HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(60)) + HEAD + b"\r\n", 431),
        (b"GET /echo HTTP/1.1\r\nx: " + b"y" * 100_000 + b"\r\n" + HEAD + b"\r\n", 431),
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 414),
        (b"GET /nowhere/%2e%2e/echo HTTP/1.1\r\n" + HEAD + b"\r\n", 404),
        (b"GET //echo HTTP/1.1\r\n" + HEAD + b"\r\n", 404),
        (b"GET /-/../echo HTTP/1.1\r\n" + HEAD + b"\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n", 404),
        (b"CONNECT x:80 HTTP/1.1\r\n" + HEAD + b"\r\n", 400),
        (b"POST /fast/times/5 HTTP/1.1\r\n" + HEAD + b"Content-Length: 0\r\n\r\n", 405),
        (b"POST /model HTTP/1.1\r\n" + HEAD + b"Content-Length: 3\r\n\r\n{]x", 400),
        (b"POST /model HTTP/1.1\r\n" + HEAD + b"Content-Type: application/x-npy\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST /model HTTP/1.1\r\n" + HEAD + b"Content-Type: image/png\r\nContent-Length: 3\r\n\r\nabc", 415),
        (b"GET /echo HTTP/1.1\r\nHost: x", 408),
    ],
)  # fmt: skip
def test_bad_requests_get_the_right_status_and_a_short_reason(served, request_bytes, status):
    answer = raw(served, request_bytes)
    assert status_of(answer) == status, answer[:300]
    if status not in (405,):
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert set(body) <= {"error", "status", "request_id"} and len(body["error"]) < 300
    assert ask(served + "/echo").status == 200


def test_random_bytes_do_no_harm(served):
    """A seeded fuzz of requests that are nearly right, over raw sockets."""
    rng = random.Random(8)
    good = b"POST /echo?a=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[1, 2, 3]"
    where = urlsplit(served)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            match rng.randrange(4):
                case 0:
                    data[rng.randrange(len(data))] = rng.randrange(256)
                case 1:
                    del data[rng.randrange(len(data)) :][: rng.randrange(1, 9)]
                case 2:
                    at = rng.randrange(len(data))
                    data[at:at] = rng.randbytes(rng.randrange(1, 20))
                case 3:
                    data += data[: rng.randrange(len(data))]
            if not data:
                data = bytearray(b"\r\n")
        with socket.create_connection((where.hostname, where.port), 5) as sock:
            sock.sendall(bytes(data))
            sock.shutdown(socket.SHUT_WR)
            answer = sock.recv(65536)
        assert status_of(answer) < 500 if answer.startswith(b"HTTP/1.1 ") else not answer, (bytes(data), answer)
    assert ask(served + "/echo", b"1").status == 200
    assert serve.status().application("echo").state == "RUNNING"


def test_slow_clients_do_not_hold_up_others(served):
    where = urlsplit(served)
    slow = []
    try:
        for _ in range(50):
            sock = socket.create_connection((where.hostname, where.port), 10)
            sock.sendall(b"GET /echo HTTP/1.1\r\nHo")
            slow.append(sock)
        assert ask(served + "/echo").status == 200
        assert {status_of(sock.recv(1000)) for sock in slow} == {408}
    finally:
        for sock in slow:
            sock.close()


def test_a_port_that_is_taken_and_other_options_are_refused(served):
    with pytest.raises(shoal.errors.OptionError, match="with other options"):
        serve.start({"port": 1})
    with pytest.raises(ValueError, match="has the route prefix"):
        serve.run(echo.bind(), name="second", route_prefix="/echo")


def test_many_clients_at_once_get_their_own_answers(served):
    wrong = []

    def client(number):
        with keep_alive(served) as connection:
            for size in range(20):
                reply = ask_over(connection, f"/echo/{number}", b"x" * (size + number))
                if reply.json["nbytes"] != size + number or reply.json["path"] != f"/echo/{number}":
                    wrong.append(reply)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
