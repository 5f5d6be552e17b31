"""Performs what `kontext_async.decisions` decides, over one connection pool.

The rooms, in the order in which a request passes them:

- `engine`: joins the parts; its owner task runs everything that is async
- `batch`, `outcome_queue`: read many requests lazily, and yield their outcomes
- `uploads`: opens input images, and encodes bodies while they are sent
- `submission_gate`: waits and probes while the circuit breaker is open
- `stored_calls`, `flight`: ask the store what is to be done for a request, and record what becomes of it
- `scheduler`: submits a request, and retries it where that is safe
- `submission`, `attempt`: one request on its way to being accepted, and one attempt to send it
- `spending`: keeps a session and its shares within their cost limits
- `slot_pools`, `slots`: the semaphores under which tasks are in flight, one for each pool of models
- `submission_journal`, `row_journal`: the interface of a journal that records a submission; one that writes a row
- `transport`: HTTP over aiohttp, and nothing else
- `whole_body`: a request body that is sent in one piece
- `pools`, `lenient_protocol`, `transport_errors`: its connections, what they salvage, and their errors
- `address_guard`: the addresses to which downloads may lead
- `task_record`: an accepted task, and who waits for it
- `draining`: waits for the tasks in flight, once no further request is admitted
- `poll_loop`, `poll_workers`: poll all pending tasks, and end their waits
- `canceller`: cancels tasks at the gateway
- `downloader`, `fetch`, `image_paths`, `sinks`: download images into memory or files
- `image_stream`: passes an image on while it is downloaded
- `estimator`: asks for prices
- `event_hub`: delivers events, and counts them
- `request_times`: the seconds that a request spent in each of its stages
- `request_log`: writes events and requests to the logger
- `owned_tasks`: plain asyncio tasks with an owner
- `context`, `clock`: what the others need
"""
