"""The memory of an export, in the process as deployed."""

import base64
import json
from pathlib import Path

import pytest

from tests.contract.function_process import FunctionProcess, function_process
from tests.contract.world import BUCKET, World, bucket_server, instance, world

MIB = 1024 * 1024


def export(function: FunctionProcess, store: World, study: str, format_: str = "dicom") -> None:
    """Deliver the command, and the messages that it publishes."""
    command = {
        "path": f"studies/{study}",
        "destination": f"gs://{BUCKET}/{study}",
        "format": format_,
        "request_id": study,
    }
    assert function.push(command) == 204
    while store.follow_ups:
        data = base64.b64decode(store.follow_ups.pop(0)["data"])
        assert function.push(data, follow_up=True) == 204


@pytest.mark.serial
def test_memory_does_not_grow_with_the_study_and_is_one_chunk_for_a_large_instance(
    tmp_path: Path,
) -> None:
    with (
        bucket_server() as buckets,
        world("export_resource", tmp_path, buckets_url=buckets, EXPORT_SLICE="100") as store,
        function_process("export_resource", store.environ) as function,
    ):
        store.put(*(instance("1.1", "1.1.1", f"1.1.1.{n}") for n in range(3)))
        store.put(
            *(instance("1.2", f"1.2.{n % 5}", f"1.2.{n % 5}.{n}", pixels=724) for n in range(400))
        )
        store.put(instance("1.3", "1.3.1", "1.3.1.1", pixels=11_600))
        export(function, store, "1.1")  # what is loaded and kept once
        idle = function.rss_bytes()
        with function.peak() as samples:
            export(function, store, "1.2")
        assert (max(samples) - idle) / MIB <= 32
        with function.peak() as samples:
            export(function, store, "1.3")
        assert (max(samples) - idle) / MIB <= 80
        assert [
            record["outcome"]
            for record in store.outcomes
            if record["function"] == "export_resource"
        ][-3:] == ["exported"] * 3
        assert json.loads(store.read("1.2/manifest.json"))["counts"]["objects"] == 400


@pytest.mark.serial
def test_memory_does_not_grow_with_the_number_of_instances_with_much_metadata(
    tmp_path: Path,
) -> None:
    with (
        bucket_server() as buckets,
        world("export_resource", tmp_path, buckets_url=buckets) as store,
        function_process("export_resource", store.environ) as function,
    ):
        text = "x" * 4_000_000
        store.put(*(instance("1.1", "1.1.1", f"1.1.1.{n}") for n in range(3)))
        for n in range(40):
            store.put(instance("1.2", "1.2.1", f"1.2.1.{n}", TextValue=text))
        export(function, store, "1.1", "metadata")  # what is loaded and kept once
        idle = function.rss_bytes()
        with function.peak() as samples:
            export(function, store, "1.2", "metadata")
        assert (max(samples) - idle) / MIB <= 110
        assert len(store.read("1.2/metadata.ndjson").splitlines()) == 40
