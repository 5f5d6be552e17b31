"""The emulator over HTTP, with aiohttp: everything here that awaits.

The rooms, in the order in which a request passes:

- `app`: `Emulator`, which serves the API origin and the files origin.
- `state`: `GatewayState`, which all handlers share.
- `api`: the routes of the API origin, in the plain and in the queue dialect.
- `creation`: create requests, from their first byte to their entry in the ledger.
- `request_body`: reads and checks a create request's body, and fetches its input images.
- `streams`: server-sent events, and the wait of `/sync`.
- `files`: image downloads behind URLs that expire, with Range requests.
- `responder`: sends responses, and performs faults on the wire.
- `error_handling`: aiohttp's own errors in the gateway's shape, and the log.
"""
