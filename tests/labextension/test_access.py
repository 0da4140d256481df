"""Who may see the clusters, and what a hostile page gets."""

from __future__ import annotations

import json

import pytest
from jupyter_server.auth import Authorizer
from tornado.httpclient import HTTPClientError

CLUSTERS = ("shoal", "api", "v1", "clusters")


class Recorder(Authorizer):
    """Allows and writes down what it was asked."""

    asked: list[tuple[str, str]] = []  # noqa: RUF012 - jupyter_server makes the instance

    def is_authorized(self, handler, user, action, resource):
        self.asked.append((action, resource))
        return True


class Denier(Authorizer):
    """Denies our resource and nothing else."""

    def is_authorized(self, handler, user, action, resource):
        return resource != "shoal:clusters"


async def status_of(jp_fetch, *parts, **options):
    try:
        response = await jp_fetch(*parts, **options)
    except HTTPClientError as error:
        return error.code
    return response.code


@pytest.mark.parametrize("header", [{"Authorization": "token wrong"}, {"Authorization": ""}])
async def test_token_is_needed(jp_fetch, header):
    assert await status_of(jp_fetch, *CLUSTERS, headers=header) == 403


async def test_cookie_less_page_of_another_site_gets_nothing(jp_fetch):
    headers = {"Authorization": "", "Origin": "https://elsewhere.example", "Referer": "https://elsewhere.example/"}
    assert await status_of(jp_fetch, *CLUSTERS, headers=headers) in (403, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nothing_can_be_written(jp_fetch, method):
    options = {"method": method, "allow_nonstandard_methods": True, "body": "{}"}
    assert await status_of(jp_fetch, *CLUSTERS, **options) == 405


@pytest.mark.parametrize(
    "parts",
    [
        ("shoal", "api", "v1", "clusters", "cluster-1"),
        ("shoal", "api", "v1", "clusters", "..", "..", "contents"),
        ("shoal", "api", "v1", "clusters", "%2e%2e", "key.pem"),
        ("shoal", "api", "v1", "clusters@127.0.0.1"),
        ("shoal", "api", "v2", "clusters"),
    ],
)
async def test_there_is_no_other_address(jp_fetch, parts):
    assert await status_of(jp_fetch, *parts) == 404


async def test_address_in_the_request_is_not_acted_upon(jp_fetch, silent_listener):
    port = silent_listener.getsockname()[1]
    params = {"address": f"tcp://127.0.0.1:{port}", "url": f"http://127.0.0.1:{port}/"}
    response = await jp_fetch(*CLUSTERS, params=params)
    assert json.loads(response.body) == {"clusters": []}
    with pytest.raises(BlockingIOError):
        silent_listener.accept()


class TestAuthoriser:
    @pytest.fixture
    def jp_server_config(self, jp_server_config):
        jp_server_config["ServerApp"]["authorizer_class"] = Denier
        return jp_server_config

    async def test_denied_is_forbidden(self, jp_fetch):
        assert await status_of(jp_fetch, *CLUSTERS) == 403
        assert await status_of(jp_fetch, "api", "contents") == 200


class TestAuthoriserIsAsked:
    @pytest.fixture
    def jp_server_config(self, jp_server_config):
        jp_server_config["ServerApp"]["authorizer_class"] = Recorder
        return jp_server_config

    async def test_to_read_clusters(self, jp_fetch):
        Recorder.asked.clear()
        assert await status_of(jp_fetch, *CLUSTERS) == 200
        assert Recorder.asked == [("read", "shoal:clusters")]


class TestBaseUrl:
    @pytest.fixture
    def jp_base_url(self):
        return "/user/ada%20l/lab/"

    async def test_address_is_below_it(self, jp_fetch, jp_base_url, jp_serverapp):
        assert jp_serverapp.base_url == jp_base_url
        assert await status_of(jp_fetch, *CLUSTERS) == 200
