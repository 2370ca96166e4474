"""Imports go one way, down this list; what decides knows no socket and no clock."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

# Each line may import what stands on the lines below it. A package counts as one module.
LAYERS = """
    __main__
    cli
    cli_audit cli_diagnosis cli_injector cli_keys
    cli_auditreading
    auditaccept auditor
    appsession cli_options demo doctor injector running
    app
    sideports
    asking
    arriving explanations tokenstate
    explaining
    assembly emulator
    outbound reception
    compiling observing
    admin deliveries handler listeners
    sharingparts trails
    auditing replicas sharingreports
    consolepages control
    livestream site
    pages
    guarding
    audit audithandover
    receipts
    answers bodies deciding doorkeeper forward gate installations loading reference reloading
    reports
    status
    sharing upstreamreports
    redisstore shareddrops
    sharedentry sharednotice
    duplicates
    feed
    localca
    directory exchange keyfiles keyring pool revoking sources tokens
    dialing
    auditthread auditwaits
    auditwriter
    auditanchor
    auditrecovery
    tlsdoor
    appcalls breaker callerconnection certificates keysources
    auditfiles auditkey
    requestlog turns
    admintoken browsers config configfile connection gathering installationmetrics keys request
    logs metrics spans verdicts webhooks
    requestcounts
    auditconfig auditrecord permissions
    callerconfig listenerconfig policyconfig servingconfig upstreamconfig
    frames recorded reply
    answerhead
    passingback
    admission callers consistency credentials headeredits headers minting probing problems
    routes settings tags timeline vocabulary
    delivery fates links
    access cachecontrol cached circuit contentcoding failures inflight intake issued kinds
    latencies policy rationing secretfile upstream
    secretkinds
    egress storeurl
    ownplaces
    acceptor activation binds descriptors fronting otherend tcpsockets unixsockets
    proxyprotocol
    addresses basic callerkeys clockskew framing hops lateness masking operations outcome paths
    peers repeating secret showing tree units
    alarm queryredaction slots
    auditchain breakoff consolelog places presence recent requesthead rsanumbers sealing
    truststore
    bootstrap log_writer
    clocks errors files identifiers leftout moments randomness storescripts tracecontext
    __init__
"""
PURE = """
    presence queryredaction sealing sharedentry sharednotice storescripts storeurl
    binds peers proxyprotocol
    auditchain auditconfig auditrecord
    admission basic callerconfig callerkeys callers lateness secretkinds
    links moments
    duplicates fates frames gate headeredits latencies timeline
    answerhead
    access addresses breaker browsers cachecontrol cached circuit config consistency contentcoding
    credentials egress errors failures
    framing headers hops identifiers intake issued kinds listenerconfig masking minting operations
    outcome paths
    passingback places policy policyconfig problems rationing recent reference reloading repeating
    requesthead routes rsanumbers secret servingconfig settings showing sources tags tracecontext
    tree units upstream upstreamconfig verdicts vocabulary webhooks
"""
SHELL = {"aiohttp", "asyncio", "socket", "time"}
EMULATOR_MAY_KNOW = {"emulator", "errors", "config"}

ROOT = Path(__file__).parents[2] / "proxy"
FILES = sorted(ROOT.rglob("*.py"))
LEVEL = {name: level for level, line in enumerate(LAYERS.splitlines()) for name in line.split()}


def module_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[list[str]]:
    """Give the dotted names of what is imported at run time, wherever in the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.test, node.body = ast.Constant(value=False), [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ([*node.module.split("."), alias.name] for alias in node.names)


def ours(path: Path) -> set[str]:
    names = {name[1] for name in imported(path) if name[0] == "proxy"}
    return {"__init__" if name.startswith("__") else name for name in names} - {module_of(path)}


@pytest.mark.parametrize("name", sorted({module_of(path) for path in FILES}))
def test_every_module_has_its_place(name: str) -> None:
    assert name in LEVEL


def test_no_place_is_kept_for_what_has_gone() -> None:
    assert set(LEVEL) | set(PURE.split()) == {module_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    upward = {name for name in ours(path) if LEVEL.get(name, 0) <= LEVEL[module_of(path)]}

    assert upward == set()


@pytest.mark.parametrize("name", sorted(PURE.split()))
def test_what_decides_knows_no_socket_and_no_clock(name: str) -> None:
    foreign = {found[0] for found in imported(ROOT / f"{name}.py")}

    assert foreign & SHELL == set()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "emulator").rglob("*.py")), ids=lambda path: path.name
)
def test_the_emulator_is_a_program_of_its_own(path: Path) -> None:
    assert ours(path) <= EMULATOR_MAY_KNOW
