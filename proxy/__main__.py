"""Entry point of `icr-proxy` and `python -m proxy`."""

import sys


def main() -> None:
    """Prepare the process, then import the command line and run it."""
    from proxy import bootstrap  # noqa: PLC0415  # before everything else

    bootstrap.prepare(sys.argv[1:])
    from proxy.cli import main as run_command  # noqa: PLC0415

    run_command()


if __name__ == "__main__":
    main()
