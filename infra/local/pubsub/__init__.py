"""A Pub/Sub emulator on one port: gRPC, REST, push, retries, dead letters, Cloud Storage
subscriptions."""
