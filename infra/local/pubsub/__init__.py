"""A Pub/Sub emulator on one port: gRPC, REST, push, retries, dead letters, Cloud Storage
subscriptions.

In the order in which a request passes:

- `__main__`: the command line, `python -m infra.local.pubsub`.
- `server`: the port; HTTP/2 goes to `grpc_api`, everything else to `rest_api`.
- `api`: what each method does; `checks`: what it refuses; `wire`: the protobuf messages and errors.
- `broker`: topics, subscriptions, and the tasks of each.
- `journal`: what survives a restart, in SQLite.
- `queue`: what one subscription still has to deliver; `filters`: which messages it gets.
- `push` and `sink`: delivery to an endpoint or to Cloud Storage; `http_client` posts.
"""
