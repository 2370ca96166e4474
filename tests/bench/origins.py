"""The API of the benchmarks: as cheap as can be, so that what is measured is the proxy."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.bench.machinery import LOAD_CORE, free_port, started, until_answering

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = dt.timedelta(days=1)
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
# About 430 bytes, a project as `GET /projects` lists them.
JSON = (
    '{"pagination":{"total":1,"currentPage":0,"pageCount":1},"projects":[{"id":"'
    + "0" * 36
    + '","fullName":"Reforestation of a hillside","num":"354","publicUrl":"https://www.example.org/'
    + "p" * 60
    + '","countryCode":"IS","summary":{"exPost":1203.5,"exPostCancelled":0,"exAnte":880.25,'
    '"retired":312},"vintages":["2019","2020","2021","2022"],"statuses":["validated","issued"]}]}'
)
MINTED = '{"token":"crs_' + "0" * 48 + '","expiresAt":"2999-01-01T00:00:00Z"}'


def make_secrets(work: Path) -> None:
    """Write a self-signed certificate for localhost, its key, and an RSA key for App JWTs."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = dt.datetime.now(dt.UTC)  # noqa: TID251  # certificates want a real date
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - DAY)
        .not_valid_after(today + 7 * DAY)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (work / "cert.pem").write_bytes(certificate.public_bytes(PEM))
    app = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for file, private in (("key.pem", key), ("app.pem", app)):
        (work / file).write_bytes(private.private_bytes(PEM, PKCS8, serialization.NoEncryption()))


@contextmanager
def small_answers(work: Path, *, tls: bool) -> Iterator[str]:
    """Run nginx, answering every request with the same JSON."""
    port = free_port()
    scheme = "https" if tls else "http"
    (work / f"origin-{scheme}.conf").write_text(
        f"""
daemon off; worker_processes 1; pid {work}/origin-{scheme}.pid; error_log {work}/origin.log;
events {{ worker_connections 20000; }}
http {{
  access_log off; default_type application/json;
  keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {work}/ob; proxy_temp_path {work}/op; fastcgi_temp_path {work}/of;
  uwsgi_temp_path {work}/ou; scgi_temp_path {work}/os;
  server {{
    listen 127.0.0.1:{port} {"ssl" if tls else ""} backlog=4096;
    ssl_certificate {work}/cert.pem; ssl_certificate_key {work}/key.pem;
    ssl_session_cache shared:s:1m;
    add_header X-Tool-Call $http_x_tool_call;  # given back where one came
    location = /asked {{ stub_status; }}
    location /app/ {{ return 200 '{MINTED}'; }}
    location / {{ return 200 '{JSON}'; }}
  }}
}}
"""
    )
    command = ("nginx", "-p", work, "-c", work / f"origin-{scheme}.conf")
    with started("origin", command, core=LOAD_CORE, log=work / "origin.log") as process:
        if not tls:
            until_answering(process, f"http://127.0.0.1:{port}/")
        yield f"{scheme}://127.0.0.1:{port}"


def times_asked(upstream: str, work: Path) -> int:
    """Ask the upstream of small answers how many requests it has had, this one among them."""
    tls = ssl.create_default_context(cafile=str(work / "cert.pem"))
    with urllib.request.urlopen(f"{upstream}/asked", context=tls, timeout=20) as answer:
        # Active connections: 1 \n server accepts handled requests \n 1 1 1 \n …
        return int(answer.read().split(b"\n")[2].split()[2])


@contextmanager
def long_bodies(work: Path, tools: Path) -> Iterator[str]:
    """Run the origin that streams, and reads uploads to their end."""
    port = free_port()
    command = (tools / "benchtool", "origin", "-listen", f"127.0.0.1:{port}")
    with started("origin", command, core=LOAD_CORE, log=work / "origin.log") as process:
        until_answering(process, f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}"
