"""Thin clients of the running stack for people, programs and tests: buckets, topics, search."""

import base64
import json
import time
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

TIMEOUT_S = (5.0, 120.0)
CHUNK_BYTES = 1024 * 1024


class ClientError(Exception):
    """One line for a person: what failed and why."""


class Http:
    """One session without credentials or proxies."""

    def __init__(self, base: str) -> None:
        """base is http://host:port."""
        self.base = base
        self._session = requests.Session()
        self._session.trust_env = False

    def send(
        self, method: str, path: str, accept: Iterable[int] = (), **options: Any
    ) -> requests.Response:
        """The answer to one request.

        Raises:
            ClientError: no answer, or a status above 299 that is not in accept.
        """
        try:
            answer = self._session.request(
                method, self.base + path, timeout=options.pop("timeout", TIMEOUT_S), **options
            )
        except requests.RequestException as error:
            raise ClientError(
                f"{self.base} does not answer ({type(error).__name__}): is the stack running?"
            ) from error
        if answer.status_code > 299 and answer.status_code not in accept:
            raise ClientError(
                f"{method} {urllib.parse.unquote(path)}: {answer.status_code} {_reason(answer)}"
            )
        return answer


def _reason(answer: requests.Response) -> str:
    try:
        error = answer.json().get("error", {})
        return str(error.get("message") or error.get("reason") or "")
    except (ValueError, AttributeError):
        return answer.reason


class Buckets(Http):
    """The bucket server's JSON API."""

    def ensure(self, bucket: str) -> None:
        """Create the bucket if it is missing."""
        self.send("POST", "/storage/v1/b?project=local", accept=(409,), json={"name": bucket})

    def upload(
        self,
        bucket: str,
        name: str,
        data: bytes | Path,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/octet-stream",
    ) -> int:
        """Write an object in one request and return its generation.

        Raises:
            ClientError: the local bucket server cannot keep the name, or it refused.
        """
        check_object_name(name)
        resource = {
            "name": name,
            "contentType": content_type,
            "metadata": dict(metadata or {}),
        }
        boundary = f"local-{uuid.uuid4().hex}"
        before = (
            f"--{boundary}\r\ncontent-type: application/json\r\n\r\n"
            f"{json.dumps(resource)}\r\n"
            f"--{boundary}\r\ncontent-type: {content_type}\r\n\r\n"
        )
        after = f"\r\n--{boundary}--"
        answer = self.send(
            "POST",
            f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart",
            data=_Body(before.encode(), data, after.encode()),
            headers={"content-type": f"multipart/related; boundary={boundary}"},
        )
        return int(answer.json()["generation"])

    def objects(self, bucket: str, prefix: str = "") -> list[dict[str, Any]]:
        """The metadata of the objects whose name begins with prefix."""
        query = urllib.parse.urlencode({"prefix": prefix})
        answer = self.send("GET", f"/storage/v1/b/{bucket}/o?{query}")
        return list(answer.json().get("items") or [])

    def download(self, bucket: str, name: str) -> bytes:
        """An object's bytes."""
        return self.send("GET", f"{_object_path(bucket, name)}?alt=media").content

    def exists(self, bucket: str, name: str) -> bool:
        """Whether the object exists."""
        return self.send("GET", _object_path(bucket, name), accept=(404,)).status_code != 404

    def delete(self, bucket: str, name: str) -> None:
        """Delete an object; it may be gone already."""
        self.send("DELETE", _object_path(bucket, name), accept=(404,))


class _Body:
    """A request body that reads a file while it is sent; its length is known before."""

    def __init__(self, before: bytes, data: bytes | Path, after: bytes) -> None:
        self._before, self._data, self._after = before, data, after

    def __len__(self) -> int:
        return len(self._before) + self._size() + len(self._after)

    def _size(self) -> int:
        if isinstance(self._data, Path):
            return self._data.stat().st_size
        return len(self._data)

    def __iter__(self) -> Iterator[bytes]:
        yield self._before
        if isinstance(self._data, Path):
            with self._data.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        else:
            yield self._data
        yield self._after


def check_object_name(name: str) -> None:
    """Check a name: the local bucket server keeps objects as files, and would change or lose some.

    Raises:
        ClientError: an empty, `.` or `..` segment, or one over 255 bytes.
    """
    if any(part in ("", ".", "..") or len(part.encode()) > 255 for part in name.split("/")):
        raise ClientError(f"the local bucket cannot hold an object called {name!r}")


def _object_path(bucket: str, name: str) -> str:
    return f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"


class PubSub(Http):
    """The Pub/Sub REST API."""

    def ensure_topic(self, topic: str) -> None:
        """Create the topic if it is missing."""
        self.send("PUT", f"/v1/{topic}", accept=(409,), json={})

    def ensure_subscription(self, name: str, topic: str, config: Mapping[str, Any]) -> None:
        """Create the subscription, or change it to this configuration, except its filter."""
        answer = self.send("PUT", f"/v1/{name}", accept=(409,), json={"topic": topic, **config})
        if answer.status_code == 409:
            changed = {key: value for key, value in config.items() if key != "filter"}
            body = {"subscription": changed, "updateMask": ",".join(changed)}
            self.send("PATCH", f"/v1/{name}", json=body)

    def subscriptions(self, project: str) -> list[str]:
        """The full names of a project's subscriptions."""
        found = (
            self.send("GET", f"/v1/projects/{project}/subscriptions")
            .json()
            .get("subscriptions", [])
        )
        return [item["name"] for item in found]

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription; it may be gone already."""
        self.send("DELETE", f"/v1/{name}", accept=(404,))

    def publish(
        self,
        topic: str,
        data: bytes | Mapping[str, Any],
        attributes: Mapping[str, str] | None = None,
    ) -> str:
        """Publish one message, data as bytes or as JSON, and return its id."""
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        message = {"data": base64.b64encode(content).decode(), "attributes": dict(attributes or {})}
        answer = self.send("POST", f"/v1/{topic}:publish", json={"messages": [message]})
        return str(answer.json()["messageIds"][0])

    def pull(self, subscription: str, wait: bool = True, limit: int = 100) -> list[dict[str, Any]]:
        """Pull and acknowledge up to limit messages, with decoded data; may wait and return
        none."""
        body = {"maxMessages": limit, "returnImmediately": not wait}
        answer = self.send("POST", f"/v1/{subscription}:pull", json=body)
        received = answer.json().get("receivedMessages", [])
        if received:
            ids = [item["ackId"] for item in received]
            self.send("POST", f"/v1/{subscription}:acknowledge", json={"ackIds": ids})
        messages = []
        for item in received:
            message = item["message"]
            data = base64.b64decode(message.get("data", ""))
            messages.append({**message, "data": data})
        return messages


class Watch:
    """The outcomes published from now on, from a subscription that is deleted at the end."""

    # Prefix of the name; a stack that starts deletes such subscriptions of earlier runs.
    PREFIX = "watch-"

    def __init__(self, pubsub: PubSub, topic: str, name: str) -> None:
        """name is the full name of a subscription that does not exist yet."""
        self._pubsub = pubsub
        self._name = name
        pubsub.ensure_subscription(name, topic, {"messageRetentionDuration": "86400s"})

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self._pubsub.delete_subscription(self._name)

    def take(self, wait_s: float = 30.0) -> list[dict[str, Any]]:
        """The outcomes since the last call; waits up to wait_s seconds for the first."""
        end, pause_s = time.monotonic() + wait_s, 0.02
        while True:
            messages = self._pubsub.pull(self._name, wait=False)
            left_s = end - time.monotonic()
            if messages or left_s <= 0:
                return [json.loads(message["data"]) for message in messages]
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, 0.25)

    def follow(self) -> Iterator[dict[str, Any]]:
        """Every outcome as it comes, forever."""
        while True:
            yield from self.take()
