"""AdmissionReview documents: the question as it comes, the verdict as it goes.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal

import msgspec

from icr_proxy.errors import DECODE_ERRORS, BadRequestError

VERSION, KIND = "admission.k8s.io/v1", "AdmissionReview"
# The API server cuts warnings that are longer, and drops those beyond 4096 characters in all.
WARNING_MOST, WARNINGS_MOST = 256, 8
MESSAGE_MOST = 2048  # characters; people read it
NOTHING = msgspec.Raw(b"null")

Result = Literal["injected", "already", "untouched", "passed", "refused"]


class ResourceKind(msgspec.Struct):
    """Of what kind the object is."""

    group: str = ""
    version: str = ""
    kind: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.group, self.version, self.kind)))


class AdmissionRequest(msgspec.Struct, rename="camel"):
    """What is about to happen."""

    uid: str
    kind: ResourceKind
    operation: str = ""
    namespace: str = ""
    sub_resource: str = ""
    dry_run: bool | None = None
    object: msgspec.Raw = NOTHING


class Review(msgspec.Struct, rename="camel"):
    """The envelope."""

    api_version: str
    kind: str
    request: AdmissionRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionVerdict:
    """What becomes of it."""

    result: Result
    pod: str = ""
    """Its name, or how that will begin."""
    patch: tuple[dict[str, object], ...] = ()
    warnings: tuple[str, ...] = ()
    code: int = 0
    """Of a refusal: 422 if an annotation is wrong, 403 if the pod has no room for a proxy."""
    message: str | None = None

    def __post_init__(self) -> None:
        """Keep to what can be shown: names in a pod may be of any length when it is asked about."""
        kept = tuple(each[:WARNING_MOST] for each in self.warnings[:WARNINGS_MOST])
        object.__setattr__(self, "warnings", kept)
        if self.message is not None:
            object.__setattr__(self, "message", self.message[:MESSAGE_MOST])

    @property
    def allowed(self) -> bool:
        """Whether the pod may be."""
        return self.result != "refused"


def read_request(body: bytes) -> AdmissionRequest:
    """Read a question.

    Raises:
        BadRequestError: it is none.
    """
    try:
        review = msgspec.json.decode(body, type=Review)
    except DECODE_ERRORS:
        raise BadRequestError(f"the body is no {KIND} of {VERSION} with a request") from None
    if (review.api_version, review.kind) != (VERSION, KIND) or not review.request.uid:
        raise BadRequestError(f"the body is no {KIND} of {VERSION} with a request")
    return review.request


def write_verdict(verdict: AdmissionVerdict, *, uid: str) -> dict[str, object]:
    """Put a verdict into its envelope; the patch is in base64, as the API wants it."""
    response: dict[str, object] = {"uid": uid, "allowed": verdict.allowed}
    if not verdict.allowed:
        response["status"] = {"code": verdict.code, "message": verdict.message}
    if verdict.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(verdict.patch)).decode()
    if verdict.warnings:
        response["warnings"] = list(verdict.warnings)
    return {"apiVersion": VERSION, "kind": KIND, "response": response}
