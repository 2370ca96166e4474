"""What may be configured: types, keys, rules between keys, loader.

Pure but for `loader` reading files; it never opens a socket.
"""
