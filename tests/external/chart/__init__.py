"""The Helm chart and the Kustomize component, rendered and judged: `.ci/run` runs `check_*.py`."""
