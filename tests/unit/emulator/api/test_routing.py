"""A target means an endpoint in whatever disguise."""

import pytest

from icr_proxy.emulator.api.route_table import ROUTES
from icr_proxy.emulator.api.routing import EndpointRouter, split_target
from tests.support.emulator_client import Client, raw


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/a/b?c", ("/a/b", "c")),
        ("/a?", ("/a", "")),
        ("/a?b?c", ("/a", "b?c")),
        ("http://host:1/a?b", ("/a", "b")),
        ("http://host", ("/", "")),
        ("*", ("/", "")),
    ],
)
def test_target_is_split_at_the_first_question_mark(target: str, parts: tuple[str, str]) -> None:
    assert split_target(target) == parts


@pytest.mark.parametrize(
    "path",
    [
        "/app/installations/token",
        "/APP/Installations/TOKEN",
        "/app/installations/token/",
        "//app//installations/token",
        "/./app/installations/token",
        "/projects/../app/installations/token",
        "/%61pp/installations/token",
        "/app%2finstallations%2Ftoken",
        "/projects/%2e%2E/app/installations/token",
        "/app\\installations\\token",
        "/../../app/installations/token",
    ],
)
def test_disguised_path_means_the_same(path: str) -> None:
    match = EndpointRouter(ROUTES).match("DELETE", path)

    assert match is not None
    assert match.route.template == "/app/installations/token"


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("GET", "/projects/internal", "/projects/internal"),
        ("GET", "/projects/x", "/projects/{projectId}"),
        ("GET", "/v1/projects/x", "/v1/projects/{projectId}"),
        ("GET", "/v1/x/inventory", "/v1/{id}/inventory"),
        ("HEAD", "/v1/x/inventory", "/v1/{id}/inventory"),
        ("GET", "/v0.5/organizations/x", "/organizations/{id}"),
        ("BREW", "/_emulator/echo/../x", "/_emulator/echo/{tail}"),
    ],
)
def test_first_row_that_fits_wins(method: str, path: str, template: str) -> None:
    match = EndpointRouter(ROUTES).match(method, path)

    assert match is not None
    assert match.route.template == template


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/organizations/x"),
        ("GET", "/v0.5/projects"),
        ("HEAD", "/v1/retire"),
        ("GET", "/v0/public/projects"),
    ],
)
def test_other_paths_mean_nothing(method: str, path: str) -> None:
    assert EndpointRouter(ROUTES).match(method, path) is None


async def test_unknown_route_is_answered_like_nestjs_does(client: Client) -> None:
    reply = await client.ask("PATCH", "/x")

    assert (reply.status, reply.json) == (
        404,
        {"statusCode": 404, "message": "Cannot PATCH /x", "error": "Not Found"},
    )


async def test_absolute_form_is_understood(client: Client) -> None:
    request = b"GET http://api.example.com/nothing HTTP/1.1\r\nHost: api.example.com\r\n\r\n"

    body = await raw(client, request)

    assert b"Cannot GET http://api.example.com/nothing" in body
