"""`icr-proxy doctor`: checks the way of a credential step by step, with a remedy for each failure.

It never serves a request.
"""
