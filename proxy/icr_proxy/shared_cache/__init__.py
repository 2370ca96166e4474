"""Tokens that replicas share through Redis; optional.

What comes back from Redis is never trusted unless it opens with our key.
"""
