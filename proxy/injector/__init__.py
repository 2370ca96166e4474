"""A Kubernetes admission webhook that adds the proxy to pods that ask for it. Serving needs none.

What is decided about a pod is pure: an AdmissionReview in, a verdict with a JSON patch out. Only
`serving`, `authority` and `cluster` know sockets, files and the Kubernetes API.
"""
