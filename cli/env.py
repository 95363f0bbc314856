"""`env`: environment variables that point Google's tools and libraries at the system."""

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
    """Print environment variables for other programs: eval "$(dicom-functions env)".

    Then gcloud and Google's client libraries use the system on this machine, and the gcloud
    commands of the documentation work on it unchanged.
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
    """The variables: the functions' settings, names in the system, addresses of its services."""
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
    """The settings of all functions, without what the platform adds."""
    found: dict[str, str] = {}
    for environment in system.environments.values():
        found |= {name: value for name, value in environment.items() if name.isupper()}
    return found


def _overrides(system: System) -> dict[str, str]:
    """What makes gcloud send its requests to this machine, without credentials."""
    healthcare = system.endpoints.healthcare.removesuffix("v1")
    return {
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_HEALTHCARE": healthcare,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"{system.endpoints.pubsub}/",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{system.endpoints.storage}/storage/v1/",
    }
