"""The HTTP that pods and the gateway share: header names, the end of a connection, the description of the routes.

Plain ASGI and plain values, so that agents can read the names without a web framework.
"""
