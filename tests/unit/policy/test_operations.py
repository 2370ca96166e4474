from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icr_proxy.policy import operations
from icr_proxy.policy.operations import UNKNOWN_CHANGE, UNKNOWN_READ, Operation

ID = "1b0e7a52-3c1f-4a7e-9d11-2c5f7a0e9b11"


def _filled(template: str) -> str:
    return re.sub(r"\{\w+\}", ID, template)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        pytest.param("GET", "", "unknown", id="nothing"),
        pytest.param("GET", "/", "unknown", id="root"),
        pytest.param("GET", "/nothing", "unknown", id="no-such-path"),
        pytest.param("GET", "/organizations", "unknown", id="too-short"),
        pytest.param("GET", "/organizations/1/inventory/x/y", "unknown", id="too-long"),
        pytest.param("GET", "/retirements/1", "unknown", id="between-two-rows"),
        pytest.param("GET", "/v1/organizations/1", "unknown", id="version-without-the-path"),
        pytest.param("GET", "/v0/projects", "unknown", id="old-version-without-the-path"),
        pytest.param("GET", "/v1/v1/retire", "unknown", id="version-twice"),
        pytest.param("PUT", "/projects", "unknown", id="method-without-rows"),
        pytest.param("get", "/projects", "unknown", id="methods-have-a-case"),
        pytest.param("GET", "/{organization}", "unknown", id="a-placeholder-is-not-a-literal"),
        pytest.param("GET", "/carbonCredits/projects/1", "unknown", id="not-a-decision-path"),
        pytest.param("GET", "/carboncredits/projects/1", "credits.projects.get", id="folded"),
        pytest.param(
            "GET", "/carboncredits/icr/inventory/buffer", "credits.inventory.get", id="kind"
        ),
        pytest.param("POST", "/app/accesstokens", "apps.tokens.create", id="folded-app"),
        pytest.param("HEAD", "/projects", "projects.list", id="head-is-get"),
        pytest.param("HEAD", "/v1/retire", "unknown", id="head-is-not-post"),
        pytest.param("GET", "/projects/internal", "projects.internal.list", id="literal-wins"),
        pytest.param("GET", "/projects/internal/1", "projects.internal.get", id="literal-and-id"),
        pytest.param("GET", "/projects/find/project", "projects.find", id="literal-wins-twice"),
        pytest.param("GET", "/projects/find", "projects.get", id="literal-that-ends-early"),
        pytest.param("GET", "/projects/find/other", "unknown", id="literal-that-leads-nowhere"),
        pytest.param("GET", "/retirements/list", "retirements.list", id="list-is-no-id"),
        pytest.param("GET", "/retirements/list/pdf", "retirements.pdf", id="list-is-an-id"),
        pytest.param("GET", "/retirements", "retirements.get", id="id-in-the-query"),
        pytest.param(
            "GET", "/v1/projects/inventory", "v1.projects.get", id="leftmost-literal-wins"
        ),
        pytest.param("GET", "/v1/1/inventory", "v1.entities.inventory.list", id="entity"),
        pytest.param(
            "POST", "/v1/projects/accounts", "v1.entities.accounts.create", id="entity-by-method"
        ),
        pytest.param(
            "DELETE", "/app/installations/token", "apps.installations.tokens.revoke", id="revoke"
        ),
        pytest.param("GET", "/app/installations/token", "apps.installations.get", id="token-as-id"),
        pytest.param(
            "POST",
            "/organizations/1/inventory/requests/transfer_retire",
            "organizations.inventory.requests.create",
            id="request",
        ),
        pytest.param(
            "POST",
            "/v0.5/organizations/1/warehouse/inventory/reservations/2/retire",
            "organizations.warehouse.reservations.finish",
            id="finish-with-version",
        ),
        pytest.param("GET", "/v0.5/projects", "projects.list", id="version-says-nothing"),
        pytest.param("GET", "/v0.5/openapi", "openapi.get", id="openapi"),
        pytest.param("GET", "/v0/public/projects/list", "v0.projects.list", id="v0"),
        pytest.param("GET", "/v0/public/projects/1", "unknown", id="v0-id"),
        pytest.param("POST", "/v1/transfer", "v1.transfer", id="transfer"),
        pytest.param("POST", "/v1/retire", "v1.retire", id="retire"),
    ],
)
def test_a_request_has_the_name_of_its_operation(method: str, path: str, name: str) -> None:
    assert operations.match(method, path).name == name


@pytest.mark.parametrize(("method", "template", "name"), operations.ROWS)
def test_every_row_is_found_by_its_own_path(method: str, template: str, name: str) -> None:
    path = _filled(template).lower()

    assert operations.match(method, path) == Operation(name, changes_state=method != "GET")


@pytest.mark.parametrize(
    ("method", "path", "changes_state"),
    [
        pytest.param("GET", "/x", False, id="unknown-get"),
        pytest.param("HEAD", "/x", False, id="unknown-head"),
        pytest.param("OPTIONS", "/v1/retire", False, id="pre-flight"),
        pytest.param("POST", "/x", True, id="unknown-post"),
        pytest.param("POST", "/projects", True, id="post-to-what-is-only-read"),
        pytest.param("PUT", "/projects", True, id="put"),
        pytest.param("PATCH", "/projects", True, id="patch"),
        pytest.param("get", "/projects", True, id="method-in-lower-case"),
        pytest.param("PROPFIND", "/projects", True, id="method-nobody-knows"),
        pytest.param("", "/projects", True, id="no-method"),
        pytest.param("GET", "/projects", False, id="read"),
        pytest.param("POST", "/v1/retire", True, id="change"),
        pytest.param("POST", "/app/accesstokens", True, id="a-token-made"),
        pytest.param("DELETE", "/v1/1/accounts/2", True, id="delete"),
    ],
)
def test_what_may_change_state_counts_as_change(
    method: str, path: str, *, changes_state: bool
) -> None:
    assert operations.match(method, path).changes_state is changes_state


@given(
    st.sampled_from(["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]),
    st.lists(
        st.sampled_from(sorted({s for _, t, _ in operations.ROWS for s in t.lower().split("/")}))
    ),
)
def test_names_are_a_closed_set(method: str, segments: list[str]) -> None:
    operation = operations.match(method, "/" + "/".join(segments))

    assert operation.name in operations.NAMES
    assert operation.changes_state is (method not in operations.SAFE_METHODS)


def test_unknown_operations_are_not_built_for_each_request() -> None:
    assert operations.match("GET", "/x") is UNKNOWN_READ
    assert operations.match("POST", "/x") is UNKNOWN_CHANGE


def test_unknown_is_a_name() -> None:
    assert "unknown" in operations.NAMES


@pytest.mark.parametrize("name", sorted(operations.NAMES))
def test_names_are_fit_for_labels(name: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(\.[a-z]+)*", name)


# -- whose organization -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "organization"),
    [
        pytest.param("", None, id="nothing"),
        pytest.param("/", None, id="root"),
        pytest.param("/organizations", None, id="no-id"),
        pytest.param("/organizations/", None, id="empty-id"),
        pytest.param("/organizations?x=/organizations/A", None, id="in-the-query"),
        pytest.param("/organizations/A", "A", id="bare"),
        pytest.param("/organizations/A/", "A", id="trailing-slash"),
        pytest.param("/organizations/A?x=/../B", "A", id="query"),
        pytest.param("/organizations/Ab-1_c/inventory/requests?page=0", "Ab-1_c", id="case-kept"),
        pytest.param("/Organizations/A/Inventory", "A", id="words-have-no-case"),
        pytest.param("/v0.5/organizations/A/inventory", "A", id="version"),
        pytest.param("/v1/organizations/A/inventory", None, id="version-without-the-path"),
        pytest.param("/organizations/" + "a" * 64, "a" * 64, id="longest"),
        pytest.param("/organizations/" + "a" * 65, None, id="too-long"),
        pytest.param("/organizations/A/undocumented/x.json", "A", id="undocumented-below"),
        pytest.param("/v1/A/inventory?x", "A", id="entity"),
        pytest.param("/v1/A/transactions/", "A", id="entity-transactions"),
        pytest.param("/v1/A/accounts/1", "A", id="entity-account"),
        pytest.param("/v1/A/undocumented", None, id="not-an-entity's"),
        pytest.param("/v1/A/inventory/x", None, id="below-an-entity's"),
        pytest.param("/v1/projects/inventory", None, id="project-of-that-name"),
        pytest.param("/v1/projects2/inventory", "projects2", id="entity-almost-of-that-name"),
        # a credential is not chosen by one of several readings
        pytest.param("//organizations/A", None, id="slash-twice"),
        pytest.param("/organizations//A", None, id="slash-twice-inside"),
        pytest.param("/organizations/A//x", None, id="slash-twice-after"),
        pytest.param("/organizations/A/../B/inventory", None, id="traversal"),
        pytest.param("/organizations/A/./inventory", None, id="dot"),
        pytest.param("/x/../organizations/A", None, id="traversal-before"),
        pytest.param("/organizations/A%2f..%2fB/inventory", None, id="encoded-traversal"),
        pytest.param("/organizations/A/%2e%2e/B", None, id="encoded-dots"),
        pytest.param("/organizations/%41", None, id="encoded-letter"),
        pytest.param("/organizations/A;x=1/inventory", None, id="parameter"),
        pytest.param("/organizations/A#x", None, id="fragment"),
        pytest.param(r"/organizations/A\..\B", None, id="backslash"),
        pytest.param("/organizations/A\n", None, id="line-break"),
        pytest.param("/organizations/Å", None, id="not-ascii"),
    ],
)
def test_an_organization_is_named_by_a_plain_path_alone(
    target: str, organization: str | None
) -> None:
    assert operations.organization_of(target) == organization


@pytest.mark.parametrize(("method", "template", "name"), operations.ROWS)
def test_an_organization_is_named_where_the_table_says_so(
    method: str, template: str, name: str
) -> None:
    has_one = "{organization}" in template or "{entity}" in template

    assert operations.organization_of(_filled(template)) == (ID if has_one else None), (
        f"{method} {name}"
    )
