"""The paths of the API (fact sheet section 1), and the resource of a URL."""

from typing import NamedTuple

import flask

from infra.local.dicomstore.rows import Uids

LOCATION = "/<any(v1,v1beta1):version>/projects/<project>/locations/<location>"
DATASETS = LOCATION + "/datasets"
DATASET = DATASETS + "/<dataset>"
STORES = DATASET + "/dicomStores"
STORE = STORES + "/<store>"
WEB = STORE + "/dicomWeb"
STUDY = WEB + "/studies/<study>"
SERIES = STUDY + "/series/<series>"
INSTANCE = SERIES + "/instances/<instance>"

Variables = dict[str, str]  # of a URL


class Place(NamedTuple):
    """A store, or a study, series or instance in it."""

    store: int
    version: str
    dataset: str
    name: str  # projects/…/dicomStores/…
    uids: Uids
    root: str  # http://host/v1

    @property
    def base(self) -> str:
        """The store's dicomWeb URL."""
        return f"{self.root}/{self.name}/dicomWeb"


def location_of(args: Variables) -> str:
    """`projects/…/locations/…` of a URL."""
    return f"projects/{args['project']}/locations/{args['location']}"


def dataset_of(args: Variables) -> str:
    """`projects/…/locations/…/datasets/…` of a URL."""
    return f"{location_of(args)}/datasets/{args['dataset']}"


def store_of(args: Variables) -> str:
    """`projects/…/dicomStores/…` of a URL."""
    return f"{dataset_of(args)}/dicomStores/{args['store']}"


def uids_of(args: Variables) -> Uids:
    """The UIDs in a URL."""
    return Uids(args.get("study", ""), args.get("series", ""), args.get("instance", ""))


def own_url() -> str:
    """`http://host:port` as the client sees it.

    If Host is this machine without its port, as from dicomweb-client, the port is added.
    """
    host, port = flask.request.host, flask.request.environ["SERVER_PORT"]
    own = ("127.0.0.1", "localhost", flask.request.environ["SERVER_NAME"])
    if host in own and port != "80":
        host = f"{host}:{port}"
    return f"{flask.request.scheme}://{host}"


def is_dicomweb() -> bool:
    """Whether the request is for DICOMweb, whose errors have another form (fact sheet 8)."""
    return "/dicomWeb/" in flask.request.path
