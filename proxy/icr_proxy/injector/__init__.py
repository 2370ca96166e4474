"""A Kubernetes admission webhook that adds the proxy to pods that ask for it.

Decisions about a pod are pure; serving a request never needs this package.
"""
