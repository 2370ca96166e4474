"""A real Redis between real programs; `.ci/run` runs this."""
