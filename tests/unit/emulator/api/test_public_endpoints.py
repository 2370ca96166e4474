"""What any access token may read."""

import pytest

from tests.support.emulator_client import Client


async def test_pages_count_from_zero_and_end_with_null(client: Client) -> None:
    token = await client.mint_for_app()
    targets = [f"/projects?limit=4&page={number}" for number in range(3)]

    pages = [(await client.ask("GET", target, bearer=token)).json for target in targets]

    assert [len(page["projects"]) for page in pages] == [4, 2, 0]
    assert [page["pagination"] for page in pages] == [
        {"total": 6, "currentPage": 0, "pageCount": 2, "nextPage": 1, "prevPage": None},
        {"total": 6, "currentPage": 1, "pageCount": 2, "nextPage": None, "prevPage": 0},
        {"total": 6, "currentPage": 2, "pageCount": 2, "nextPage": None, "prevPage": 1},
    ]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "page=1.5", "page=", "limit=٣"]
)
async def test_bad_page_is_a_bad_request(client: Client, query: str) -> None:
    reply = await client.ask("GET", f"/projects?{query}", bearer=await client.mint_for_app())

    assert reply.status == 400
    assert isinstance(reply.json["message"], list)


async def test_internal_projects_need_the_examiner_permission(client: Client) -> None:
    world = client.emulator.world
    hidden = next(project.id for project in world.projects.values() if not project.is_public)
    plain = await client.mint()
    world.set_permissions(client.installation().id, {"examiner": "VIEW"})
    examiner = await client.mint()

    statuses = [
        (await client.ask("GET", f"/projects/{hidden}", bearer=examiner)).status,
        (await client.ask("GET", f"/projects/internal/{hidden}", bearer=plain)).status,
        (await client.ask("GET", f"/projects/internal/{hidden}", bearer=examiner)).status,
    ]

    listed = await client.ask("GET", "/projects/internal", bearer=examiner)
    assert statuses == [404, 403, 200]
    assert listed.json["pagination"]["total"] == 7


@pytest.mark.parametrize("name", ["serialization", "creditId"])
async def test_project_is_found_by_serialization_or_credit(client: Client, name: str) -> None:
    batch = next(iter(client.emulator.world.batches.values()))
    value = {"serialization": batch.serialization, "creditId": batch.id}[name]

    reply = await client.ask(
        "GET", f"/projects/find/project?{name}={value}", bearer=await client.mint()
    )

    assert reply.json["id"] == batch.project.id


@pytest.mark.parametrize(("query", "status"), [("", 400), ("?creditId=x", 404)])
async def test_project_is_not_found_without_a_match(
    client: Client, query: str, status: int
) -> None:
    reply = await client.ask("GET", f"/projects/find/project{query}", bearer=await client.mint())

    assert reply.status == status


async def test_summary_of_a_project_has_fractions(client: Client) -> None:
    project = next(iter(client.emulator.world.projects))

    reply = await client.ask(
        "GET", f"/carbonCredits/projects/{project}", bearer=await client.mint()
    )

    assert reply.json["summary"]["retired"] == 12.345
    assert [item["vintage"] for item in reply.json["vintages"]] == ["2020", "2021", "2022", "2027"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [("buffer", 200), ("adjustment", 200), ("organization", 200), ("attic", 404)],
)
async def test_registry_has_three_inventories(client: Client, kind: str, status: int) -> None:
    target = f"/carbonCredits/icr/inventory/{kind}"

    reply = await client.ask("GET", target, bearer=await client.mint())

    assert reply.status == status


async def test_retirements_are_public(client: Client) -> None:
    token = await client.mint_for_app()
    listed = await client.ask("GET", "/retirements/list?limit=2&page=0", bearer=token)
    first = listed.json["retirements"][0]["id"]

    one = await client.ask("GET", f"/retirements?anyName={first}", bearer=token)
    pdf = await client.ask("GET", f"/retirements/{first}/pdf", bearer=token)
    none = await client.ask("GET", "/retirements?id=x", bearer=token)

    assert listed.json["pagination"]["total"] == 3
    assert one.json["id"] == first
    assert pdf.body.startswith(b"%PDF")
    assert none.status == 404


@pytest.mark.parametrize("generation", ["v1", "v0.5", "v0"])
async def test_description_lists_the_paths(client: Client, generation: str) -> None:
    reply = await client.ask("GET", f"/{generation}/openapi")

    assert "post" in reply.json["paths"]["/v1/retire"]
    assert not [path for path in reply.json["paths"] if path.startswith("/_emulator")]
