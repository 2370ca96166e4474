"""Writes the tamper-evident audit trail, off the hot path.

It never sees a secret, a header or a body.
"""
