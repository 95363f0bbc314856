"""The tests, and what they need before anything else is imported."""

import os

# The stack's processes are forked from this one. In a fork, gRPC would start its threads again,
# which end the process when its files are closed before the new program runs.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
