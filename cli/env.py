"""`env`: the environment in which Google's tools and libraries speak to the system."""

import shlex

import click

from cli.clients import Clients
from cli.options import system_option
from cli.output import Format, Item, Listing, format_option, say
from cli.system import System
from cli.text import shown


@click.command()
@format_option
@system_option
def env(clients: Clients, output: Format) -> int:
    """Print the environment for other programs: eval "$(dicom-functions env)".

    gcloud, gcloud storage and Google's client libraries then speak to the system that runs here,
    and the commands of the documents run as they stand.
    """
    values = variables(clients.system)
    if output.for_people:
        for name, value in values.items():
            say(f"export {name}={shlex.quote(shown(value))}")
        return 0
    items = [Item.of({"name": name, "value": value}) for name, value in values.items()]
    Listing(output).print(items, ("name", "value"))
    return 0


def variables(system: System) -> dict[str, str]:
    """The variables: names of the system, the functions' settings, and where the services are."""
    found = {
        **_settings(system),
        **{f"{role.upper()}_BUCKET": name for role, name in system.buckets.items()},
        "PROJECT": system.project,
        "GOOGLE_CLOUD_PROJECT": system.project,
        "CLOUDSDK_CORE_PROJECT": system.project,
        "DICOMWEB_URL": f"{system.endpoints.healthcare}/{system.store.name}/dicomWeb",
        "SEARCH_URL": system.search_url,
    }
    if system.local:
        found |= _overrides(system)
    return found


def _settings(system: System) -> dict[str, str]:
    """Those of every function; of a deployment's platform none."""
    found: dict[str, str] = {}
    for environment in system.environments.values():
        found |= {name: value for name, value in environment.items() if name.isupper()}
    return found


def _overrides(system: System) -> dict[str, str]:
    """What makes gcloud send its requests here, and without credentials."""
    healthcare = system.endpoints.healthcare.removesuffix("v1")
    return {
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_HEALTHCARE": healthcare,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"{system.endpoints.pubsub}/",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{system.endpoints.storage}/storage/v1/",
    }
