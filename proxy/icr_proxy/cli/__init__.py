"""The command line: arguments in, exit code out. Each command imports what it needs itself."""
