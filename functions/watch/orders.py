"""ON_STUDY_COMPLETE: the exports that a complete study starts, as data.

    [{"name": "ct-to-training",
      "match": {"Modality": "CT"},
      "export": {"destination": "gs://bucket/ct", "format": "png"}}]

`match` has attributes by which the store can search for instances; without it every study matches.
`export` has the keys of an export command except `path`, `query` (the study is exported) and
`request_id`. The export's destination is a folder for each study.

The request id is made of the order's name, the study and a number that identifies the completion:
an order that is published twice is one request, and a study that is complete again, perhaps with
the same number of instances, is another one.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Self

from functions.api.commands import is_selective
from functions.api.requests import EXPORT_KEYS, ExportRequest
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, SettingsError
from functions.common.events.messages import Message
from functions.common.events.runtime import Services
from functions.common.log import log
from functions.common.resources import GcsPrefix, Resource
from functions.common.settings import Settings
from functions.common.values import is_line

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}", re.ASCII)
# What the store can filter instances by, except UIDs (fact sheet section 4.1).
MATCH_KEYS: Final = (
    "PatientName",
    "PatientID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDate",
    "Modality",
)
_KEYS: Final = frozenset({"name", "match", "export"})
_OWN_KEYS: Final = frozenset({"path", "query", "request_id"})  # set by this function
_ORDER_FORM: Final = "an order has name, export and perhaps match"


@dataclass(frozen=True)
class Order:
    """One export to start.

    Args:
        name: part of the request's id.
        match: keywords and values, as in QIDO-RS.
        export: the command, without the keys that are set for each study.
    """

    name: str
    match: tuple[tuple[str, str], ...]
    export: dict[str, Any]

    def command(self, study: Resource, completion: int) -> dict[str, Any]:
        """The export command for a study.

        Args:
            completion: the generation of the study's marker that is closed.
        """
        folder = GcsPrefix.parse(self.export["destination"])
        return {
            **self.export,
            "path": str(study),
            "destination": f"{folder}/{study.study}",
            # At most 40 + 64 + 19 characters and two colons, of 128.
            "request_id": f"{self.name}:{study.study}:{completion}",
        }

    @classmethod
    def parse(cls, value: object) -> Self:
        """From JSON.

        Raises:
            SettingsError: it is not an order; the message says what is wrong.
        """
        if not isinstance(value, dict):
            raise _wrong(_ORDER_FORM)
        if not {"name", "export"} <= value.keys() <= _KEYS:
            raise _wrong(_ORDER_FORM)
        name = value["name"]
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _wrong("a name is up to 40 lowercase letters, digits and -")
        match = {}
        if "match" in value:
            match = _match(name, value["match"])
        return cls(
            name=name,
            match=tuple(match.items()),
            export=_export(name, value["export"]),
        )


def _match(name: str, value: object) -> dict[str, str]:
    """What an order takes under `match`."""
    if not isinstance(value, dict):
        raise _wrong_match(name)
    if not value:
        raise _wrong(f"the match of {name} is empty: leave it out for every study")
    for key, text in value.items():
        if not _is_match(key, text):
            raise _wrong_match(name)
    return value


def _is_match(key: object, text: object) -> bool:
    """Whether this attribute can be searched by, and the text does not match everything."""
    if not isinstance(key, str) or key not in MATCH_KEYS:
        return False
    if not isinstance(text, str) or not is_line(text):
        return False
    return is_selective(key, text)


def _export(name: str, value: object) -> dict[str, Any]:
    """What an order takes under `export`; the values are checked with a whole command."""
    if not isinstance(value, dict):
        raise _wrong_export(name)
    if not isinstance(value.get("destination"), str):
        raise _wrong_export(name)
    for key in value:
        if key not in EXPORT_KEYS or key in _OWN_KEYS:
            raise _wrong(f"the export of {name} does not take {key}")
    return value


def read(settings: Settings) -> tuple[Order, ...]:
    """The orders, each tested with an invented study.

    Raises:
        SettingsError: one is malformed, two have the same name, or the export function would
            refuse one.
    """
    orders = tuple(Order.parse(value) for value in settings.on_study_complete)
    if not orders:
        return ()
    names = {order.name for order in orders}
    if len(names) < len(orders):
        raise _wrong("two orders have the same name")
    if not settings.exports_topic or not settings.export_destinations:
        raise _wrong("orders need EXPORTS_TOPIC and EXPORT_DESTINATIONS")
    for order in orders:
        _check(order, settings)
    return orders


def _check(order: Order, settings: Settings) -> None:
    try:
        command = order.command(Resource("2.25.1"), completion=1)
        request = ExportRequest.read(Message(json.dumps(command).encode()))
    except PermanentError as error:
        raise _wrong(f"the export of {order.name}: {error.detail}") from None
    if not settings.may_export_to(request.destination):
        raise _wrong(f"the destination of {order.name} is not in EXPORT_DESTINATIONS")


def publish(
    orders: tuple[Order, ...],
    study: Resource,
    completion: int,
    services: Services,
    deadline: Deadline,
) -> int:
    """Publish the exports whose order matches the study; returns their number.

    Args:
        completion: as in Order.command.

    Raises:
        RetryableError: the DICOM store or Pub/Sub is busy or does not answer.
    """
    # All are matched first: if the store does not answer, the message is delivered again, and none
    # has been published in vain.
    matching = [order for order in orders if _matches(order, study, services, deadline)]
    topic = services.settings.exports_topic
    for order in matching:
        command = order.command(study, completion)
        data = json.dumps(command).encode()
        services.topics.publish(topic, data, {}, deadline)
    return len(matching)


def _matches(
    order: Order,
    study: Resource,
    services: Services,
    deadline: Deadline,
) -> bool:
    if not order.match:
        return True
    params = [*order.match, ("limit", "1")]
    try:
        found = services.dicom_store.search(study, "instances", params, deadline)
    except PermanentError as error:
        # An order that the store refuses must not prevent the report of the study.
        log("ERROR", "order_refused", detail=order.name, reason=error.reason)
        return False
    return bool(found)


def _wrong_match(name: str) -> SettingsError:
    keys = ", ".join(MATCH_KEYS)
    return _wrong(
        f"the match of {name} takes {keys}, each with a text that does not match everything;"
        " StudyDate takes YYYYMMDD or a range of such"
    )


def _wrong_export(name: str) -> SettingsError:
    return _wrong(f"the export of {name} is an object with a destination")


def _wrong(what: str) -> SettingsError:
    return SettingsError(f"ON_STUDY_COMPLETE: {what}")
