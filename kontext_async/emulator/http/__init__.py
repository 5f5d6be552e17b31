"""The emulator over HTTP, with aiohttp: everything here that awaits.

The rooms, in the order in which a request passes:

- `app`: `Emulator`, which serves the API origin and the files origin.
- `state`: `GatewayState`, which all handlers share.
- `dialects`: where the key of a request is, and how a refusal looks, in each dialect.
- `api`: the routes of the vendor's gateway, in the plain and in the queue dialect.
- `bfl_api`: the routes of Black Forest Labs' dialect, and of Fireworks' variant.
- `creation`: create requests, from their first byte to their entry in the ledger.
- `request_body`: reads and checks a create request's body, and fetches its input images.
- `webhooks`: deliveries of webhooks, late and twice where a fault says so.
- `streams`: server-sent events, and the wait of `/sync`.
- `files`: image downloads behind URLs that expire, with Range requests.
- `responder`: sends responses, and performs faults on the wire.
- `error_handling`: aiohttp's own errors in the gateway's shape, and the log.
"""
