"""The ports beside those of clients: admin API, live console, webhooks.

They never forward a request and never show a secret.
"""
