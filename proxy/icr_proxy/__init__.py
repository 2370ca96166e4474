"""icr-proxy: a transparent authenticating reverse proxy in front of the ICR carbon-registry API."""

__version__ = "0.1.0"
