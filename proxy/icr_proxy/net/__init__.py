"""Addresses, sockets, TLS, the PROXY protocol: everything below HTTP.

It never knows what a connection carries.
"""
