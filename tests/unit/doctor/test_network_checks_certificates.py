"""What OpenSSL's verdicts mean to a person."""

from __future__ import annotations

import ssl
from pathlib import Path

from icr_proxy.doctor.network_checks import UNKNOWN_CA, advice, shown_issuer


def verdict(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("failed")
    error.verify_code, error.verify_message = code, "a rare reason"
    return error


def test_a_ca_file_in_use_is_named_when_it_does_not_suffice() -> None:
    detail, remedy = advice(verdict(20), ca_file=Path("/etc/ca.pem"))

    assert "those in /etc/ca.pem are" in detail
    assert remedy == UNKNOWN_CA[1]


def test_a_rare_verdict_is_passed_on() -> None:
    detail, _ = advice(verdict(24), ca_file=None)

    assert detail == "the certificate is not trusted: a rare reason"


def test_what_is_no_certificate_has_no_issuer() -> None:
    assert shown_issuer(b"nothing") == ""
    assert shown_issuer(None) == ""
