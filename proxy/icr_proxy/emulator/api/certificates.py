"""A retirement as a PDF download: binary, with a file name (V)."""

from icr_proxy.emulator.api.calls import Answer, Call
from icr_proxy.emulator.api.pdf import render
from icr_proxy.emulator.api.shapes import Shapes, amount_number
from icr_proxy.emulator.api_errors import not_found
from icr_proxy.emulator.registry.entities import Retirement


def find_retirement(call: Call, *, owner: str | None = None) -> Retirement:
    """Find the retirement that the path names; with `owner`, only if it is theirs."""
    retirement = call.world.retirements.get(call.params["retirementId"])
    if retirement is None or owner not in (None, retirement.organization_id):
        raise not_found("Retirement")
    return retirement


def certificate(call: Call, *, retirement: Retirement) -> Answer:
    """Print a certificate."""
    lines = (
        "Certificate of retirement (ICR emulator, no real credits)",
        f"Retirement: {retirement.id}",
        f"Date: {Shapes(call.world.settings).date(retirement.created_at)}",
        f"Amount: {amount_number(retirement.amount)} t CO2e",
        f"Serialization: {retirement.batch.serialization}",
        f"Project: {retirement.batch.project.full_name}",
        f"Beneficiary: {retirement.purpose.beneficiary}",
        f"Reason: {retirement.purpose.reason}",
    )
    name = f"retirement-{retirement.id}.pdf"
    return Answer(
        body=render(lines),
        headers=(
            ("Content-Type", "application/pdf"),
            ("Content-Disposition", f'attachment; filename="{name}"'),
            ("ETag", f'"{retirement.id}"'),
        ),
    )
