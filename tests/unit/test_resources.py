import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.common.errors import PermanentError
from functions.common.resources import DicomStoreName, GcsPrefix, ObjectRef, Resource, is_uid

STORE = "projects/p-1/locations/europe-west4/datasets/d.s/dicomStores/s_1"


@pytest.mark.parametrize("uid", ["111", "1.2.840.10008", "1" * 64, "0.0", "01.02"])
def test_a_uid_is_digits_and_dots(uid: str) -> None:
    assert is_uid(uid)


@pytest.mark.parametrize(
    "uid", ["", ".", "1.", ".1", "1..2", "1" * 65, "1.a", "1.2\n", "１.２", "1.2/3", "1.2%2F3"]
)
def test_anything_else_is_none(uid: str) -> None:
    assert not is_uid(uid)


@pytest.mark.parametrize(
    "path", ["studies/1.2", "studies/1.2/series/3", "studies/1.2/series/3/instances/4.5"]
)
def test_a_path_comes_back_as_it_was(path: str) -> None:
    assert str(Resource.parse(path)) == path
    assert str(Resource.parse("/" + path)) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "studies",
        "studies/",
        "studies/1.2/",
        "studies/1.2/series",
        "studies/1.2/instances/3",
        "series/1.2",
        "studies/1.2/series/3/instances/4/frames/1",
        "studies/1.2/series//instances/4",
        "studies/../1",
        "studies/1.2?x=1",
        "studies/1.2/series/3/instances/4:delete",
    ],
)
def test_any_other_path_is_an_invalid_command(path: str) -> None:
    with pytest.raises(PermanentError, match="invalid_command"):
        Resource.parse(path)


@given(st.text())
def test_no_text_makes_a_path_that_is_not_plain(text: str) -> None:
    try:
        parsed = str(Resource.parse(text))
    except PermanentError:
        return
    assert set(parsed) <= set("0123456789./abcdefghijklmnopqrstuvwxyz")
    assert ".." not in parsed


def test_a_store_knows_its_dataset_and_operations() -> None:
    store = DicomStoreName(STORE)
    assert store.dataset == "projects/p-1/locations/europe-west4/datasets/d.s"
    assert store.owns_operation(f"{store.dataset}/operations/123")
    assert not store.owns_operation(
        "projects/other/locations/europe-west4/datasets/d.s/operations/123"
    )
    assert not store.owns_operation(f"{store.dataset}/operations/../x")


@pytest.mark.parametrize(
    "name", ["", "projects/p", STORE + "/dicomWeb", STORE.replace("p-1", "p/1"), STORE + "\n"]
)
def test_any_other_store_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="takes projects/P"):
        DicomStoreName(name)


def test_an_object_name_becomes_one_segment_of_a_url() -> None:
    assert ObjectRef("bucket", "a b/ü?#.dcm", 7).quoted == "a%20b%2F%C3%BC%3F%23.dcm"


@pytest.mark.parametrize(
    ("bucket", "name"),
    [("B", "x"), ("a/b", "x"), ("ab", "x"), ("bucket", ""), ("bucket", "x" * 1025)],
)
def test_what_cannot_be_an_object_is_refused(bucket: str, name: str) -> None:
    with pytest.raises(PermanentError, match="invalid_event"):
        ObjectRef(bucket, name)


@pytest.mark.parametrize("text", ["gs://bucket", "gs://bucket/a", "gs://bucket/a/b c"])
def test_a_destination_comes_back_as_it_was(text: str) -> None:
    assert str(GcsPrefix.parse(text)) == text
    assert str(GcsPrefix.parse(text + "/")) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bucket/a",
        "gs://",
        "gs://bucket//",
        "gs://bucket/a//b",
        "gs://bucket/../b",
        "gs://bucket/./b",
        "gs://bucket/a\nb",
        "gs://B/a",
    ],
)
def test_any_other_destination_is_an_invalid_command(text: str) -> None:
    with pytest.raises(PermanentError, match="invalid_command"):
        GcsPrefix.parse(text)


def test_an_allowed_destination_is_a_folder_not_a_beginning_of_a_name() -> None:
    allowed = GcsPrefix.parse("gs://bucket/research")
    assert allowed.contains(GcsPrefix.parse("gs://bucket/research"))
    assert allowed.contains(GcsPrefix.parse("gs://bucket/research/x"))
    assert not allowed.contains(GcsPrefix.parse("gs://bucket/research-secret"))
    assert not allowed.contains(GcsPrefix.parse("gs://other/research"))
    assert GcsPrefix.parse("gs://bucket").contains(GcsPrefix.parse("gs://bucket/any"))
