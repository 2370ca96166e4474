"""What a page can try against a service on this machine: each in the words of a page's script.

`URL` is where it goes. A browser says of each whether it failed, but a page may not always know; so
nothing is concluded from that, only from what the proxy and the API have seen.
"""

from __future__ import annotations

ATTACKS = {
    "fetch": "await fetch(URL).catch(() => {})",
    "fetch-no-cors": "await fetch(URL, {mode: 'no-cors'}).catch(() => {})",
    "fetch-with-credentials": "await fetch(URL, {credentials: 'include'}).catch(() => {})",
    "fetch-with-a-tag": (
        "await fetch(URL, {headers: {'X-ICR-Installation-Id': 'inst-1'}}).catch(() => {})"
    ),
    "post-text": "await fetch(URL, {method: 'POST', body: '{}'}).catch(() => {})",
    "post-text-no-cors": (
        "await fetch(URL, {method: 'POST', mode: 'no-cors', body: '{}'}).catch(() => {})"
    ),
    "post-json": (
        "await fetch(URL, {method: 'POST', body: '{}',"
        " headers: {'Content-Type': 'application/json'}}).catch(() => {})"
    ),
    "delete": "await fetch(URL, {method: 'DELETE'}).catch(() => {})",
    "no-referrer": "await fetch(URL, {mode: 'no-cors', referrerPolicy: 'no-referrer'})",
    "keepalive": "fetch(URL, {mode: 'no-cors', keepalive: true}).catch(() => {})",
    "beacon": "navigator.sendBeacon(URL, '{}')",
    "image": "add('img', {src: URL})",
    "script": "add('script', {src: URL})",
    "module": "add('script', {src: URL, type: 'module'})",
    "image-cors": "add('img', {src: URL, crossOrigin: 'anonymous'})",
    "style": "add('link', {rel: 'stylesheet', href: URL})",
    "prefetch": "add('link', {rel: 'prefetch', href: URL})",
    "video": "add('video', {src: URL, preload: 'auto'})",
    "object": "add('object', {data: URL})",
    "frame": "add('iframe', {src: URL})",
    "events": "new EventSource(URL)",
    "worker": "await import(URL).catch(() => {})",
    "websocket": "new WebSocket(URL.replace('http', 'ws'))",
    "form-get": "form({action: URL})",
    "form-post": "form({action: URL, method: 'POST', enctype: 'text/plain'})",
    "form-post-urlencoded": "form({action: URL, method: 'POST'})",
    "form-post-no-referrer": (
        "add('meta', {name: 'referrer', content: 'no-referrer'});"
        " form({action: URL, method: 'POST', enctype: 'text/plain'})"
    ),
    "sandboxed-fetch": (
        "add('iframe', {sandbox: 'allow-scripts',"
        " srcdoc: `<script>fetch('${URL}', {method: 'POST', mode: 'no-cors'})</script>`})"
    ),
    "sandboxed-form": (
        "add('iframe', {sandbox: 'allow-scripts allow-forms', srcdoc:"
        " `<form method=post action='${URL}'></form><script>document.forms[0].submit()</script>`})"
    ),
    "redirected": "add('img', {src: '/redirect?' + URL})",
    "navigation": "location = URL",
}

PAGE = b"""<!doctype html><title>page</title><body><script>
const add = (name, attributes) =>
  document.body.appendChild(Object.assign(document.createElement(name), attributes));
const form = attributes => {
  const frame = add('iframe', {name: 'target' + Math.random()});
  add('form', {...attributes, target: frame.name}).submit();
};
</script></body>"""


def script(name: str, url: str) -> str:
    """Give the script of one attack."""
    return f"async () => {{ const URL = '{url}'; {ATTACKS[name]}; }}"
