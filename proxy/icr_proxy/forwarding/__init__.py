"""One request from its head to its outcome, and the same as a dry run.

It decides when a request is sent again, and never knows a client's socket.
"""
