"""The app's keys, its JWT, the token exchange, the token cache and the list of installations.

A token is keyed by its installation and nothing looser.
"""
