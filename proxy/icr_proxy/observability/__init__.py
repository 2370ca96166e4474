"""The outcome of a request, and the log, metrics and spans that read it.

No secret ever enters an outcome.
"""
