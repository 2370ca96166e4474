"""What a request is and who may do it; pure.

It knows no socket, no clock and no event loop.
"""
