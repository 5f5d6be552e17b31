"""The schedule of polls: which task to poll, and when. No await, no clock.

In the order in which a task passes them:

- `entry`: the record of a polled task, and the table of its places in the queue.
- `queue`: the tasks that wait to be polled; selects among those that are due.
- `timer_wheel`: the tasks that are due later, by due time.
- `rate_cap`: the cap on polls per second.
- `failures`: what follows from failed polls.
- `watching`: the schedule of a task that somebody watches.
- `timing`: the rule that says when a task is due, and the rule with a fixed interval.
- `adaptive`: the rule that learns when tasks are likely to have ended.
- `batch_end`: the urgency of polls at the end of a batch.
- `server_times`: the duration of a task by the gateway's clock.
- `survival`: the distribution of the ages at which tasks end, estimated from polls.
- `progress_model`: the end of a task as its progress predicts it.
- `inspection`: the optimal schedule for a known distribution.
"""
