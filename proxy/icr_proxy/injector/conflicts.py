"""What of a pod has no room for a proxy, and what of it weakens one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icr_proxy.injector.sidecar import NAME, VOLUMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from icr_proxy.injector.annotations import Wish
    from icr_proxy.injector.pods import Pod


def conflicts(pod: Pod, wish: Wish) -> Iterator[str]:
    """Say why the proxy cannot be added; nothing if it can."""
    spec = pod.spec
    if spec.host_network:
        yield (
            "the pod has hostNetwork: the proxy's loopback would be the node's, and whoever is on"
            " the node could act as the installation"
        )
    if spec.os is not None and spec.os.name == "windows":
        yield "the pod is for Windows, for which there is no image of the proxy"
    if any(each.name == NAME for each in pod.everything):
        yield f"the pod has a container {NAME} of its own; rename it, or do without injection"
    yield from _ports(pod, wish)
    for each in spec.volumes or ():
        if each.name in VOLUMES:
            yield f"the pod has a volume {each.name} of its own; rename it"


def _ports(pod: Pod, wish: Wish) -> Iterator[str]:
    wanted = {wish.port: "port", wish.admin_port: "admin-port"}
    for each in pod.everything:
        for port in each.ports or ():
            number = port.container_port
            if number is not None and number in wanted and port.protocol in (None, "", "TCP"):
                yield (
                    f"container {each.name} has port {number}, which the proxy wants; choose"
                    f" another one for it with icr-proxy/{wanted[number]}"
                )


def weaknesses(pod: Pod, wish: Wish) -> Iterator[str]:
    """Say what works, but not as somebody might think."""
    if pod.spec.share_process_namespace:
        yield (
            "shareProcessNamespace: containers that run as 65532 or as root can read the proxy's"
            " files, the app's private key among them, through /proc"
        )
    if wish.mode == "plain" and pod.is_of_job:
        yield (
            "a plain sidecar does not end with the job's own container; let that POST to"
            f" http://{wish.admin}/quit at its end, or use icr-proxy/mode: native"
        )
