"""ON_STUDY_COMPLETE: the exports that a complete study starts, as data.

    [{"name": "ct-to-training",
      "match": {"Modality": "CT"},
      "export": {"destination": "gs://bucket/ct", "format": "png"}}]

`match` has attributes that the DICOM store can search instances by; without it every study matches.
`export` has the keys of an export command except `path`, `query` (the study is exported) and
`request_id`, which is made of the order's name, the study and its count of instances: so an order
that is published twice is one request. The export's destination is a folder for each study.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Self

from functions.api.requests import EXPORT_KEYS, ExportRequest
from functions.common.deadline import Deadline
from functions.common.errors import PermanentError, SettingsError
from functions.common.events.messages import Message
from functions.common.events.runtime import Services
from functions.common.log import log
from functions.common.resources import GcsPrefix, Resource
from functions.common.settings import Settings

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
_DATES: Final = re.compile(r"\d{8}(-(\d{8})?)?|-\d{8}", re.ASCII)
_MATCHES_ALL: Final = "*? \\"  # values of only these characters are wildcards or empty lists
_KEYS: Final = frozenset({"name", "match", "export"})
_OWN_KEYS: Final = frozenset({"path", "query", "request_id"})  # set by this function


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

    def command(self, study: Resource, instances: int) -> dict[str, Any]:
        """The export command for a study."""
        folder = GcsPrefix.parse(self.export["destination"])
        return {
            **self.export,
            "path": str(study),
            "destination": f"{folder}/{study.study}",
            "request_id": f"{self.name}:{study.study}:{instances}",
        }

    @classmethod
    def parse(cls, value: object) -> Self:
        """From JSON.

        Raises:
            SettingsError: it is not an order; the message says what is wrong.
        """
        if not isinstance(value, dict) or not {"name", "export"} <= value.keys() <= _KEYS:
            raise _wrong("an order has name, export and perhaps match")
        name, match, export = value["name"], value.get("match", {}), value["export"]
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _wrong("a name is up to 40 small letters, digits and -")
        if not isinstance(match, dict) or not all(map(_is_match, match.items())):
            raise _wrong(
                f"the match of {name} takes {', '.join(MATCH_KEYS)}, each with a text that does"
                " not match everything; StudyDate takes YYYYMMDD or a range of such"
            )
        if "match" in value and not match:
            raise _wrong(f"the match of {name} is empty: leave it out for every study")
        if not isinstance(export, dict) or not isinstance(export.get("destination"), str):
            raise _wrong(f"the export of {name} is an object with a destination")
        for key in export.keys() - EXPORT_KEYS.keys() | export.keys() & _OWN_KEYS:
            raise _wrong(f"the export of {name} does not take {key}")
        return cls(name, tuple(match.items()), export)


def read(settings: Settings) -> tuple[Order, ...]:
    """The orders, each tested with an invented study.

    Raises:
        SettingsError: one is malformed, two have the same name, or the export function would
            refuse one.
    """
    orders = tuple(Order.parse(value) for value in settings.on_study_complete)
    if not orders:
        return ()
    if len({order.name for order in orders}) < len(orders):
        raise _wrong("two orders have the same name")
    if not settings.exports_topic or not settings.export_destinations:
        raise _wrong("orders need EXPORTS_TOPIC and EXPORT_DESTINATIONS")
    for order in orders:
        _check(order, settings)
    return orders


def give(
    orders: tuple[Order, ...],
    study: Resource,
    instances: int,
    services: Services,
    deadline: Deadline,
) -> int:
    """Publish the exports whose order matches the study; returns their number.

    Raises:
        RetryableError: the DICOM store or Pub/Sub is busy or does not answer.
    """
    matching = [order for order in orders if _matches(order, study, services, deadline)]
    for order in matching:
        data = json.dumps(order.command(study, instances)).encode()
        services.topics.publish(services.settings.exports_topic, data, {}, deadline)
    return len(matching)


def _matches(order: Order, study: Resource, services: Services, deadline: Deadline) -> bool:
    if not order.match:
        return True
    params = [*order.match, ("limit", "1")]
    try:
        return bool(services.dicom_store.search(study, "instances", params, deadline))
    except PermanentError as error:
        # An order that the store refuses must not prevent the report of the study.
        log("ERROR", "order_refused", detail=order.name, reason=error.reason)
        return False


def _is_match(item: tuple[object, object]) -> bool:
    key, value = item
    if key not in MATCH_KEYS or not isinstance(value, str) or not value.isprintable():
        return False
    if key == "StudyDate":
        return bool(_DATES.fullmatch(value))
    return bool(value.strip(_MATCHES_ALL))


def _check(order: Order, settings: Settings) -> None:
    try:
        command = order.command(Resource("2.25.1"), 1)
        request = ExportRequest.read(Message(json.dumps(command).encode()))
    except PermanentError as error:
        raise _wrong(f"the export of {order.name}: {error.detail}") from None
    if not settings.may_export_to(request.destination):
        raise _wrong(f"the destination of {order.name} is not in EXPORT_DESTINATIONS")


def _wrong(what: str) -> SettingsError:
    return SettingsError(f"ON_STUDY_COMPLETE: {what}")
