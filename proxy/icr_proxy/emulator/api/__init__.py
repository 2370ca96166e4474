"""The endpoints of the emulated API: routes, checks, shapes of the answers."""
