"""Reads an audit trail: verifies, searches, sums up and exports it.

It never writes into a trail.
"""
