"""Decisions of the engine, as plain functions and objects that receive `now` and random numbers. No await, no clock.

In the order in which a request passes them:

- `shares`, `fair_queue`: the parties among whom slots are divided, and whose request is next.
- `admission`, `durations`: how long tasks take, whether one more request may wait, when a refused one may come again.
- `pools`: the models that share a limit on unfinished tasks.
- `concurrency`, `throttling`: the number of tasks that may be in flight, and the pause of create requests.
- `circuit_breaker`: when submitting stops, and when it is tried again.
- `budget`, `money`: whether one more request fits the cost limit; amounts that make sense.
- `submission`: the phases of a submission, and what an interruption means in each.
- `resend`: whether a failed create request may be sent again, and when.
- `cancelling`: what to send next to cancel a task.
- `polling`: which task to poll next and when, and what a failed poll means.
- `transport_failures`: the kinds of failure that leave a request without a response.
- `proxies`: the proxy for a URL.
- `urls`, `networks`: the URL that a download requests, and the addresses to which it may lead.
- `downloads`: what the head of a response means for a download.
"""
