"""The filter language, without a server."""

import pytest

from infra.local.pubsub.filters import FilterError, compile_filter

ATTRIBUTES = {
    "bucketId": "landing",
    "eventType": "OBJECT_FINALIZE",
    "iana.org/tz": "x",
    "quote": 'a"b',
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ('attributes.bucketId = "landing"', True),
        ('attributes.bucketId="other"', False),
        ('attributes.bucketId != "other"', True),
        ('attributes.missing != "other"', False),
        ("attributes:bucketId", True),
        ("NOT attributes:bucketId", False),
        ("-attributes:missing", True),
        ('hasPrefix(attributes.eventType, "OBJECT_")', True),
        ('hasPrefix(attributes.missing, "")', False),
        ('attributes."iana.org/tz" = "x"', True),
        ('attributes.quote = "a\\"b"', True),
        ('attributes.bucketId = "landing" AND attributes:eventType', True),
        ('attributes.bucketId = "other" OR attributes:eventType', True),
        ('attributes.bucketId = "other" OR (attributes:eventType AND NOT attributes:quote)', False),
    ],
)
def test_a_filter_takes_the_messages_that_it_describes(text: str, expected: bool) -> None:
    assert compile_filter(text)(ATTRIBUTES) is expected


@pytest.mark.parametrize(
    "text",
    [
        "attributes",
        "attributes.a",
        'attributes.a = "1" AND',
        "attributes.a = b",
        "(attributes:a",
        "x:a",
        "attributes:a §",
        "attributes:a AND attributes:b OR attributes:c",
        "attributes:a attributes:b",
        'attributes.a < "1"',
    ],
)
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(FilterError):
        compile_filter(text)
