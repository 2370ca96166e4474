"""Connections to the API: pool, connection, circuit breaker.

It never knows tokens or installations, and never sends a request twice by itself.
"""
