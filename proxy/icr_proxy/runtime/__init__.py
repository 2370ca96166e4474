"""Builds the program from a configuration, and starts, reloads, drains and stops it.

Nothing else constructs a service.
"""
