"""Entry point of `icr-proxy` and `python -m icr_proxy`."""

import sys


def main() -> None:
    """Prepare the process, then import the command line and run it."""
    from icr_proxy.runtime import bootstrap  # noqa: PLC0415  # before everything else

    bootstrap.prepare(sys.argv[1:])
    from icr_proxy.cli.main import main as run_command  # noqa: PLC0415

    run_command()


if __name__ == "__main__":
    main()
