"""One store that answers by plan and one search function in front of it, for all tests of a
module; and the search page in a browser, before a store with thirty studies."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.contract.strictbucket import StrictBuckets, strict_buckets
from tests.contract.topics import TopicServer, topic_server
from tests.search.browser import browser
from tests.search.kit import (
    Answer,
    FakeStore,
    Function,
    fake_store,
    function,
    real_store,
    study,
)

STATE = "dicom-state"
LANDING = "dicom-landing"
EXPORTS = "projects/local/topics/exports"
ORIGIN = "https://viewer.example.org"


@pytest.fixture(scope="module")
def store() -> Iterator[FakeStore]:
    """The store."""
    with fake_store() as running:
        yield running


@pytest.fixture(scope="module")
def search(store: FakeStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    """The function."""
    folder = tmp_path_factory.mktemp("search")
    with function(store.url, folder, SEARCH_ORIGINS=ORIGIN, SEARCH_TIMEOUT_S="8") as running:
        yield running


@pytest.fixture(scope="package")
def topics() -> Iterator[TopicServer]:
    """The topic that the page's exports are published on."""
    with topic_server(EXPORTS) as server:
        yield server


@pytest.fixture(scope="package")
def buckets() -> Iterator[StrictBuckets]:
    """The landing bucket, and the state bucket, where `notify` keeps the outcomes of requests."""
    with strict_buckets(STATE, LANDING) as server:
        yield server


@pytest.fixture(scope="package")
def full(
    topics: TopicServer, buckets: StrictBuckets, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Function]:
    """The function before a store with thirty studies, one of them with a series of fifty."""
    folder = tmp_path_factory.mktemp("page")
    yamada = {
        "PatientName": "Yamada^Tarou=山田^太郎",
        "StudyDate": "20250203",
        "SpecificCharacterSet": "ISO_IR 192",
    }
    files = [*study(1), *study(2, "MR", series=1, instances=50, **yamada)]
    for number in range(3, 31):
        files += study(number, series=1, instances=1, PatientName=f"Crowd^{number}")
    settings = {
        "SEARCH_EXPORTS": "true",
        "EXPORTS_TOPIC": EXPORTS,
        "EXPORT_DESTINATIONS": "gs://exports/ct,gs://exports/mr",
        "PUBSUB_EMULATOR_HOST": topics.address,
        "SEARCH_UPLOADS": "true",
        "SEARCH_UPLOAD_MAX_BYTES": "3000000",
        "LANDING_BUCKET": LANDING,
        "STATE_BUCKET": STATE,
        "STORAGE_EMULATOR_HOST": buckets.url,
        "SEARCH_VIEWER_URL": "https://viewer.example.org/viewer?StudyInstanceUIDs={study}",
    }
    with (
        real_store(folder / "store", files) as endpoint,
        function(endpoint, folder, **settings) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser. There is one at a time: Playwright runs one loop in a thread."""
    with browser() as running:
        yield running


@pytest.fixture
def page(chromium: Browser, full: Function, buckets: StrictBuckets) -> Iterator[Page]:
    """The page, loaded; nothing it does may be an error, lead to another host than the bucket's, or
    put a name into a URL."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(20_000)
    opened = context.new_page()
    errors: list[str] = []
    urls: list[str] = []

    def keep_error(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    opened.on("console", keep_error)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda request: urls.append(request.url))
    opened.on("framenavigated", lambda frame: urls.append(frame.url))
    opened.goto(full.url)
    expect(opened.locator("#status")).to_have_text("30 studies")
    yield opened
    context.close()
    assert errors == []
    own = (full.url, buckets.url, "blob:")
    assert [url for url in urls if not url.startswith(own)] == []
    assert [url for url in urls if "Doe" in url or "Yamada" in url] == []


@pytest.fixture
def planned(chromium: Browser, store: FakeStore, tmp_path: Path) -> Iterator[Page]:
    """The page before a store that answers by plan; not loaded yet."""
    store.answers(Answer())
    with function(store.url, tmp_path) as running:
        context = chromium.new_context(accept_downloads=True, base_url=running.url)
        context.set_default_timeout(20_000)
        yield context.new_page()
        context.close()
