"""An ICR API for laptops, tests and demos: it keeps state, moves credits and forgets it all.

It is a program of its own and knows only the errors and the configuration of the proxy.
"""
