"""Who may see and change the clusters, and what a hostile page gets."""

from __future__ import annotations

import http.cookies
import json

import pytest
from jupyter_server.auth import Authorizer
from tornado.httpclient import AsyncHTTPClient, HTTPClientError

API = ("shoal", "api", "v1")
CLUSTERS = (*API, "clusters")
OF_A_CLUSTER = "clusters/cluster-none"

#: Every verb: method, path, body, and the action an authoriser is asked about.
VERBS = [
    ("GET", "clusters", None, "read"),
    ("POST", "clusters", {"spec": {"nodez": 1}}, "execute"),
    ("GET", "specs", None, "read"),
    ("GET", "starts/cluster-none", None, "read"),
    ("DELETE", "starts/cluster-none", None, "write"),
    ("PATCH", OF_A_CLUSTER, {"nodes": 1}, "write"),
    ("DELETE", OF_A_CLUSTER, None, "write"),
    ("POST", f"{OF_A_CLUSTER}/cancel", {"owner": "driver-1", "cell": "a"}, "write"),
    ("POST", f"{OF_A_CLUSTER}/actors/actor-1", {"action": "kill"}, "write"),
    ("GET", f"{OF_A_CLUSTER}/pending?owner=driver-1", None, "read"),
    ("GET", f"{OF_A_CLUSTER}/why?owner=driver-1&object=obj-1", None, "read"),
    ("GET", f"{OF_A_CLUSTER}/failures?owner=driver-1", None, "read"),
    ("GET", f"{OF_A_CLUSTER}/memory?owner=driver-1", None, "read"),
    ("POST", f"{OF_A_CLUSTER}/release", {"owner": "driver-1"}, "write"),
    ("GET", f"{OF_A_CLUSTER}/logs?node=node-1&source=executor-1", None, "read"),
    ("GET", f"{OF_A_CLUSTER}/executors", None, "read"),
    ("GET", f"{OF_A_CLUSTER}/stack?node=node-1&executor=executor-1", None, "read"),
    ("POST", f"{OF_A_CLUSTER}/profile", {"node": "node-1", "executor": "executor-1", "seconds": 1}, "execute"),
    ("GET", f"{OF_A_CLUSTER}/timeline", None, "read"),
    ("GET", f"{OF_A_CLUSTER}/analysis", None, "read"),
    ("GET", f"{OF_A_CLUSTER}/metrics", None, "read"),
]
HOSTILE = ["..", "%2e%2e", "@host", "..;", "a@127.0.0.1", "%2e%2e%2fkey.pem", "a%00b", "a%0d%0aX", "~", "-", "."]


class Recorder(Authorizer):
    """Allows and writes down what it was asked."""

    asked: list[tuple[str, str]] = []  # noqa: RUF012 - jupyter_server makes the instance

    def is_authorized(self, handler, user, action, resource):
        self.asked.append((action, resource))
        return True


class Denier(Authorizer):
    """Denies one action on our resource and nothing else."""

    action = ""

    def is_authorized(self, handler, user, action, resource):
        return (action, resource) != (self.action, "shoal:clusters")


class DeniesRead(Denier):
    action = "read"


class DeniesWrite(Denier):
    action = "write"


class DeniesExecute(Denier):
    action = "execute"


@pytest.fixture
def fetch(http_server_client, jp_http_port, jp_base_url, jp_auth_header):
    """Send a request as it is, with nothing escaped on the way; returns status and answer."""

    async def send(method, path, body=None, headers=None):
        url = f"{jp_base_url}{path}"
        given = jp_auth_header if headers is None else headers
        options = {"method": method, "headers": given, "allow_nonstandard_methods": True, "request_timeout": 30}
        try:
            response = await http_server_client.fetch(
                url, body=None if body is None else json.dumps(body), follow_redirects=False, **options
            )
        except HTTPClientError as error:
            return error.code, error.response.body if error.response is not None else b""
        return response.code, response.body

    return send


async def log_in(host, jp_http_port, jp_base_url, jp_serverapp):
    """Return the headers of a browser that has logged in."""
    token = jp_serverapp.identity_provider.token
    login = await AsyncHTTPClient().fetch(f"http://{host}:{jp_http_port}{jp_base_url}api/status?token={token}")
    cookies = http.cookies.SimpleCookie()
    for header in login.headers.get_list("Set-Cookie"):
        cookies.load(header)
    return {"Cookie": "; ".join(f"{name}={morsel.coded_value}" for name, morsel in cookies.items())}


async def status_of(jp_fetch, *parts, **options):
    try:
        response = await jp_fetch(*parts, **options)
    except HTTPClientError as error:
        return error.code
    return response.code


async def statuses(fetch, headers=None):
    return {
        (method, path): (await fetch(method, f"shoal/api/v1/{path}", body, headers))[0]
        for method, path, body, _ in VERBS
    }


def test_no_verb_is_left_out():
    from shoal_labextension.handlers import ROUTES

    verbs = ("get", "post", "put", "patch", "delete")
    served = {
        (verb.upper(), handler) for route, handler in ROUTES if route != "live" for verb in verbs
        if verb in vars(handler)
    }  # fmt: skip
    assert len(served) == len(VERBS)


@pytest.mark.parametrize("header", [{"Authorization": "token wrong"}, {"Authorization": ""}])
async def test_a_token_is_needed_for_everything(fetch, header):
    assert set((await statuses(fetch, header)).values()) <= {302, 403}
    # A page that is not logged in is sent to log in when it reads; it learns nothing, and changes nothing.
    assert all(code == 403 for (method, _), code in (await statuses(fetch, header)).items() if method != "GET")


async def test_page_of_another_site_gets_nothing(fetch):
    headers = {"Authorization": "", "Origin": "https://elsewhere.example", "Referer": "https://elsewhere.example/"}
    assert set((await statuses(fetch, headers)).values()) <= {302, 403, 404}


async def test_a_page_with_a_cookie_needs_the_xsrf_token(fetch, jp_http_port, jp_base_url, jp_serverapp):
    cookie = await log_in("127.0.0.1", jp_http_port, jp_base_url, jp_serverapp)
    assert (await fetch("GET", "shoal/api/v1/specs", headers=cookie))[0] == 200
    for method, path, body, _ in VERBS:
        if method != "GET":
            assert (await fetch(method, f"shoal/api/v1/{path}", body, cookie))[0] == 403, path


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_the_list_itself_cannot_be_written(jp_fetch, method):
    options = {"method": method, "allow_nonstandard_methods": True, "body": "{}"}
    assert await status_of(jp_fetch, *CLUSTERS, **options) == 405


@pytest.mark.parametrize(
    "path",
    ["clusters/cluster-1/nothing", "clusters@127.0.0.1", "../v2/clusters", "clusters/a/actors", "starts", "live/x"],
)
async def test_there_is_no_other_address(fetch, path):
    assert (await fetch("GET", f"shoal/api/v1/{path}"))[0] in (400, 404)


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_ids_reach_nothing(fetch, name, jp_runtime_dir):
    secret = jp_runtime_dir / "key.pem"
    secret.write_text("the secret")
    for method, path, body, _ in VERBS:
        if "cluster-none" in path:
            hostile = path.replace("cluster-none", name).replace("driver-1", name)
            status, answer = await fetch(method, f"shoal/api/v1/{hostile}", body)
            assert status in (400, 404, 405), (method, hostile, status)
            assert b"the secret" not in answer
    assert secret.exists()


async def test_an_id_that_is_nobodys_is_words(fetch):
    for method, path, body, _ in VERBS:
        if "cluster-none" in path:
            status, answer = await fetch(method, f"shoal/api/v1/{path}", body)
            assert status == 404, path
            fields = json.loads(answer)
            assert fields["message"] and fields["reason"] and set(fields) == {"message", "reason"}


async def test_address_in_the_request_is_not_acted_upon(jp_fetch, silent_listener):
    port = silent_listener.getsockname()[1]
    params = {"address": f"tcp://127.0.0.1:{port}", "url": f"http://127.0.0.1:{port}/"}
    response = await jp_fetch(*CLUSTERS, params=params)
    assert json.loads(response.body) == {"clusters": []}
    with pytest.raises(BlockingIOError):
        silent_listener.accept()


@pytest.mark.parametrize("denier", [DeniesRead, DeniesWrite, DeniesExecute])
class TestAuthoriser:
    @pytest.fixture
    def jp_server_config(self, jp_server_config, denier):
        jp_server_config["ServerApp"]["authorizer_class"] = denier
        return jp_server_config

    async def test_what_is_denied_is_forbidden_and_no_more(self, fetch, jp_fetch, jp_ws_fetch, denier):
        found = await statuses(fetch)
        for method, path, _, action in VERBS:
            assert (found[method, path] == 403) == (action == denier.action), path
        assert await status_of(jp_fetch, "api", "contents") == 200
        if denier is DeniesRead:
            with pytest.raises(HTTPClientError, match="403"):
                await jp_ws_fetch(*API, "live")
        else:
            (await jp_ws_fetch(*API, "live")).close()


class TestAuthoriserIsAsked:
    @pytest.fixture
    def jp_server_config(self, jp_server_config):
        jp_server_config["ServerApp"]["authorizer_class"] = Recorder
        return jp_server_config

    async def test_about_each_verb(self, fetch):
        for method, path, body, action in VERBS:
            Recorder.asked.clear()
            await fetch(method, f"shoal/api/v1/{path}", body)
            assert Recorder.asked == [(action, "shoal:clusters")], path

    async def test_about_watching(self, jp_ws_fetch):
        Recorder.asked.clear()
        (await jp_ws_fetch(*API, "live")).close()
        assert Recorder.asked == [("read", "shoal:clusters")]


async def test_a_websocket_needs_credentials(jp_ws_fetch):
    for headers in ({"Authorization": ""}, {"Authorization": "token wrong"}):
        with pytest.raises(HTTPClientError, match="403"):
            await jp_ws_fetch(*API, "live", headers=headers)


async def test_a_websocket_of_another_site_is_refused(jp_ws_fetch, jp_base_url, jp_serverapp, jp_http_port):
    """A cookie goes along with what any site asks for; a token does not."""
    cookie = await log_in("localhost", jp_http_port, jp_base_url, jp_serverapp)
    own = {**cookie, "Authorization": "", "Origin": f"http://localhost:{jp_http_port}"}
    (await jp_ws_fetch(*API, "live", headers=own)).close()
    for origin in ("https://elsewhere.example", "null", f"http://localhost.elsewhere.example:{jp_http_port}"):
        with pytest.raises(HTTPClientError, match="403"):
            await jp_ws_fetch(*API, "live", headers={**own, "Origin": origin})


class TestBaseUrl:
    @pytest.fixture
    def jp_base_url(self):
        return "/user/ada%20l/lab/"

    async def test_address_is_below_it(self, jp_fetch, jp_ws_fetch, fetch, jp_base_url, jp_serverapp):
        assert jp_serverapp.base_url == jp_base_url
        assert await status_of(jp_fetch, *CLUSTERS) == 200
        page = await jp_ws_fetch(*API, "live")
        assert json.loads(await page.read_message())["type"] == "hello"
        page.close()
        assert (await fetch("GET", "shoal/api/v1/specs"))[0] == 200
