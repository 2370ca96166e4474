"""HTTP/1.1 towards clients: listener, connection, request, response.

It never knows installations, tokens or the API.
"""
