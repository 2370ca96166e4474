import json

import pytest

from icr_proxy.server.response import Page, json_page, text_page


def test_text_ends_its_line() -> None:
    page = text_page(200, "ok")

    assert page == Page(status=200, content_type=b"text/plain; charset=utf-8", body=b"ok\n")


def test_json_is_json() -> None:
    page = json_page(403, {"message": "No."})

    assert (page.status, page.content_type) == (403, b"application/json")
    assert json.loads(page.body) == {"message": "No."}


@pytest.mark.parametrize(
    "page", [text_page(405, "x", allow=b"POST"), json_page(405, {}, allow=b"POST")]
)
def test_a_page_says_which_methods_would_do(page: Page) -> None:
    assert page.allow == b"POST"
