"""A session inside other people's frameworks. Each module needs its framework, and is imported by who uses it.

``problems``
    Errors as problem details (RFC 9457): one table from the error tree to HTTP statuses.
``serving``
    What all web frameworks need: the life of a session in a server, its drain before a stop, clients that have left,
    bodies of requests, the events of a task, readiness.
``aiohttp_web``
    aiohttp's server: ``pip install 'kontext_async[aiohttp-web]'``.
``starlette``
    Starlette, and so FastAPI; its responses work in Litestar too: ``pip install 'kontext_async[starlette]'``.
``opentelemetry``
    Spans and metrics of a session: ``pip install 'kontext_async[opentelemetry]'``.
``webhooks``
    What the handlers of webhooks share: a delivery is read within a bound, and given to the session.
``aiohttp_webhook``
    A handler of webhooks for aiohttp's server.
``starlette_webhook``
    A handler of webhooks for Starlette, and so for FastAPI.
"""
