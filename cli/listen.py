"""`listen`: receive webhooks on this machine and print those whose signature verifies."""

import http.server
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import click
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from cli.clients import CALL_S, Clients
from cli.errors import CliError
from cli.numbers import Whole
from cli.options import OUTCOME_COLUMNS, outcome_item, system_option
from cli.output import Format, Stream, format_option, note

LISTENER = "listen"  # the webhook of the local system
_BODY_LIMIT_BYTES = 10 * 1024 * 1024
_ACK_DEADLINE_S = 60
_LOOK_S = 1.0


@click.command()
@click.option("--port", type=Whole(1, 65535), metavar="N", help="The port to listen on.")
@format_option
@system_option
def listen(clients: Clients, port: int | None, output: Format) -> int:
    """Receive webhooks and print those whose signature verifies, until Ctrl-C.

    The system on this machine has a webhook for this command. For a deployed system, configure a
    webhook whose URL leads to this machine, and give its port (--port) and its secret (in the
    environment variable WEBHOOK_SECRET).
    """
    stream = Stream(output, OUTCOME_COLUMNS)
    with receiver(clients, port) as received:
        while True:
            # Without a timeout, a Ctrl-C that comes just before the wait would be noticed only at
            # the next message.
            with suppress(queue.Empty):
                message = received.get(timeout=_LOOK_S)
                stream.add(outcome_item(message["data"]))


@contextmanager
def receiver(clients: Clients, port: int | None = None) -> Iterator["queue.Queue[dict[str, Any]]"]:
    """The messages that verify, as they come, until the `with` block ends.

    Args:
        port: to listen on; None: the port of the local system's webhook.

    Raises:
        CliError: port or secret is missing, or the port is in use.
    """
    system = clients.system
    secret = os.environ.get("WEBHOOK_SECRET", "")
    calls: AbstractContextManager[None] = nullcontext()
    if system.local:
        calls = _called(clients)
    if system.local and port is None:
        port = system.webhook_port
        secret = system.environments["notify"]["WEBHOOK_SECRET_LISTEN"]
    if port is None or not secret:
        raise CliError("a deployed system needs --port, and the secret in WEBHOOK_SECRET")
    received: queue.Queue[dict[str, Any]] = queue.Queue()
    try:
        server = _Server(port, Webhook(secret), received)
    except OSError as error:
        raise CliError(f"cannot listen on port {port}: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    note(f"listening on http://127.0.0.1:{port}/")
    try:
        with calls:
            yield received
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _called(clients: Clients) -> Iterator[None]:
    """The local system calls its webhook only within the `with` block: calls without a receiver
    would be repeated for hours."""
    from google.api_core.exceptions import NotFound

    system = clients.system
    webhooks = system.topology["optional"]["webhooks"]
    name = system.subscription(webhooks["prefix"] + LISTENER)
    url = f"{system.function_urls['notify']}{webhooks['path']}{LISTENER}"
    backoff = {
        "minimum_backoff": {"seconds": 1},
        "maximum_backoff": {"seconds": 10},
    }
    subscription = {
        "name": name,
        "topic": system.topic("outcomes"),
        "push_config": {"push_endpoint": url},
        "ack_deadline_seconds": _ACK_DEADLINE_S,
        "retry_policy": backoff,
    }
    try:
        clients.subscriber.create_subscription(request=subscription, timeout=CALL_S)
        yield
    finally:
        # A Ctrl-C may have come before the answer to the creation.
        with suppress(NotFound):
            clients.subscriber.delete_subscription(subscription=name, timeout=CALL_S)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, port: int, webhook: Webhook, received: "queue.Queue[dict[str, Any]]"
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.webhook = webhook
        self.received = received


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Take a message that verifies."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _BODY_LIMIT_BYTES:
            self._answer(413)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            message = self.server.webhook.verify(self.rfile.read(int(length)), headers)
        except WebhookVerificationError:
            note("refused a call whose signature does not verify")
            self._answer(401)
            return
        self.server.received.put(message)
        self._answer(204)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Log nothing: the command prints what is received."""
