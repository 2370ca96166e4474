"""HTTP/1.1 on the wire: heads, framing, headers, problem bodies; pure.

It knows no socket, no clock and no event loop.
"""
