"""Where the bulk data of an instance is, as its metadata says."""

from functions.export.fetch import _bulkdata_paths


def test_only_the_checked_path_of_a_bulk_data_uri_is_used() -> None:
    base = "https://elsewhere.example/v1/projects/p/dicomStores/s/dicomWeb/studies/1/series/2/instances/3/bulkdata"
    dataset = {
        "7FE00010": {"vr": "OW", "BulkDataURI": f"{base}/7FE00010"},
        "00400100": {
            "vr": "SQ",
            "Value": [{"00100010": {"vr": "OB", "BulkDataURI": f"{base}/00400100/0/00100010"}}],
        },
        "00420011": {"vr": "OB", "BulkDataURI": f"{base}/../../4/metadata"},
        "00420012": {"vr": "OB", "BulkDataURI": 7},
        "00420013": {"vr": "OB", "BulkDataURI": "7FE00010"},
    }
    assert sorted(_bulkdata_paths(dataset)) == ["", "", "", "00400100/0/00100010", "7FE00010"]


def test_metadata_may_be_nested_as_deeply_as_it_can_be_read() -> None:
    uri = "x/bulkdata/7FE00010"
    dataset: object = {"BulkDataURI": uri}
    for _ in range(50_000):
        dataset = {"00400100": {"Value": [dataset]}}
    assert list(_bulkdata_paths(dataset)) == ["7FE00010"]
