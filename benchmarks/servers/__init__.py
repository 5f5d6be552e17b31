"""The servers that the benchmarks run against, each in its own process.

- `schedule`: Service times, and the best possible run over them
- `api_dialects`: The responses of several gateways, as templates
- `mock_gateway`: A gateway that is faster than any client
- `proxy_front`: A reverse proxy that refuses connections or answers 502
- `raw_sink`: A server that discards uploads and sends images as fast as a socket allows
- `daemons`: Programs of the machine that run as daemons, and end with the process that started them
- `postgres`: A PostgreSQL server that can be restarted and paused
- `pgbouncer`: PgBouncer in transaction mode
- `redis_server`: A Redis server
- `slow_proxy`: A TCP proxy that is far away and closes idle connections
"""
