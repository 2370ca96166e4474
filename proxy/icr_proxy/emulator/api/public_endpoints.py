"""What any access token may read (section 2.3 of the facts)."""

from decimal import Decimal
from typing import Final

from icr_proxy.emulator.api.calls import ApiResponse, Call, Route, json_answer, page
from icr_proxy.emulator.api.organization_endpoints import (
    certificate,
    find_retirement,
    retirement_shape,
)
from icr_proxy.emulator.api.shapes import Json, Shapes, amount_number
from icr_proxy.emulator.api_errors import ApiError, invalid, not_found
from icr_proxy.emulator.registry.entities import ZERO, CreditBatch, Project
from icr_proxy.emulator.registry.world import World

_ICR_ACCOUNTS: Final = ("buffer", "adjustment", "organization")


def list_public(call: Call) -> ApiResponse:
    """List public projects."""
    public = [project for project in call.world.projects.values() if project.is_public]
    shape = Shapes(call.world.settings).project
    return json_answer(page(call, items=public, name="projects", shape=shape))


def list_internal(call: Call) -> ApiResponse:
    """List all projects, for examiners."""
    shape = Shapes(call.world.settings).project
    everything = list(call.world.projects.values())
    return json_answer(page(call, items=everything, name="projects", shape=shape))


def read_public(call: Call) -> ApiResponse:
    """Read a public project; others do not exist for the reader (A)."""
    return _project_answer(call, _project(call, internal=False))


def read_internal(call: Call) -> ApiResponse:
    """Read any project, for examiners."""
    return _project_answer(call, _project(call, internal=True))


def find_project(call: Call) -> ApiResponse:
    """Find the project of a serialization or a credit (D-old); sent unescaped by callers (V)."""
    serials, credit_ids = call.query.get("serialization", []), call.query.get("creditId", [])
    if not serials and not credit_ids:
        raise invalid("serialization should not be empty", "creditId should not be empty")
    for batch in call.world.batches.values():
        if batch.serialization in serials or batch.id in credit_ids:
            return _project_answer(call, batch.project)
    raise not_found("Project")


def summarize_project(call: Call) -> ApiResponse:
    """Sum up a project's credits; fractional numbers occur (D)."""
    project = _project(call, internal=False)
    batches = [b for b in call.world.batches.values() if b.project.id == project.id]
    retired = call.world.book.stored("retired")
    vintages = [
        {
            "vintage": year,
            **_summary(call.world, [b for b in batches if b.vintage == year], retired),
        }
        for year in sorted({batch.vintage for batch in batches})
    ]
    payload = {
        "summary": _summary(call.world, batches, retired),
        "vintages": vintages,
        "project": Shapes(call.world.settings).project(project),
    }
    return json_answer(payload)


def read_icr_inventory(call: Call) -> ApiResponse:
    """Read one of the registry's own inventories, which are empty here but for a remainder."""
    kind = call.params["kind"]
    if kind not in _ICR_ACCOUNTS:
        raise ApiError(404, f"Cannot {call.seen.method} {call.seen.target}")
    summary = {"exPost": 1250.5, "exAnte": 0, "retired": 0.125}
    organization = {"id": call.world.settings.app_id, "fullName": f"ICR {kind}", "isPublic": True}
    return json_answer({"summary": summary, "organization": organization})


def list_retirements(call: Call) -> ApiResponse:
    """List everybody's retirements; the two numbers' names are not certain (D)."""
    items = list(call.world.retirements.values())
    listing = page(
        call, items=items, name="retirements", shape=lambda item: retirement_shape(call, item)
    )
    return json_answer(listing)


def read_retirement(call: Call) -> ApiResponse:
    """Read one retirement; the parameter's name was not seen, so any name will do (A)."""
    for values in call.query.values():
        retirement = call.world.retirements.get(values[-1])
        if retirement is not None:
            return json_answer(retirement_shape(call, retirement))
    raise not_found("Retirement")


def download_certificate(call: Call) -> ApiResponse:
    """Download the PDF of any retirement."""
    return certificate(call, retirement=find_retirement(call))


def _project(call: Call, *, internal: bool) -> Project:
    project = call.world.projects.get(call.params["projectId"])
    if project is None or not (internal or project.is_public):
        raise not_found("Project")
    return project


def _project_answer(call: Call, project: Project) -> ApiResponse:
    return json_answer(Shapes(call.world.settings).project(project))


def _summary(world: World, batches: list[CreditBatch], retired: dict[str, Decimal]) -> Json:
    def total(kind: str) -> Decimal | int:
        amounts = (world.book.issued[b.id] for b in batches if b.type == kind)
        return amount_number(sum(amounts, start=ZERO))

    return {
        "exPost": total("exPost"),
        "exPostCancelled": 0,
        "exAnte": total("exAnte"),
        "exAnteCancelled": 0,
        "retired": amount_number(sum((retired.get(b.id, ZERO) for b in batches), start=ZERO)),
        "validated": total("exAnte"),
    }


_EXAMINER: Final = ("examiner", "VIEW")

ROUTES: Final = (
    Route("GET", "/projects", list_public, "any"),
    Route("GET", "/projects/internal", list_internal, "any", _EXAMINER),
    Route("GET", "/projects/internal/{projectId}", read_internal, "any", _EXAMINER),
    Route("GET", "/projects/find/project", find_project, "any"),
    Route("GET", "/projects/{projectId}", read_public, "any"),
    Route("GET", "/carbonCredits/projects/{projectId}", summarize_project, "any"),
    Route("GET", "/carbonCredits/icr/inventory/{kind}", read_icr_inventory, "any"),
    Route("GET", "/retirements/list", list_retirements, "any"),
    Route("GET", "/retirements", read_retirement, "any"),
    Route("GET", "/retirements/{retirementId}/pdf", download_certificate, "any"),
)
