"""The pod's HTTP side: plain ASGI at the edge, FastAPI for routes and their description.

`edge` sees every request first (identity, token, trace, errors as JSON), `app` holds the routes, `exchange` takes one
request for a transcript from its headers to the last byte of the answer, `body` reads what strangers send, `events`
writes the streamed form. What is decoded, and when, is admission's and the engine's business.
"""
