"""`outcomes`: the outcomes of all inputs."""

import click

from cli.clients import Clients
from cli.errors import CliError
from cli.options import OUTCOME_COLUMNS, outcome_item, system_option
from cli.output import Listing, Stream, listing_options, note
from cli.watch import Watch, ledger

_LATEST = 50
_LEDGER_MAX = 100_000


@click.command()
@click.option("--follow", is_flag=True, help="Show new outcomes as they come, until Ctrl-C.")
@listing_options(limit=_LATEST)
@system_option
def outcomes(clients: Clients, follow: bool, listing: Listing) -> int:
    """Show the latest outcomes in the ledger, or new ones as they come.

    The ledger is written once a minute; later outcomes are not in it yet.
    """
    if follow:
        if listing.sort_by:
            raise CliError("--sort-by cannot be used with --follow, which has no end")
        stream = Stream(listing.format, OUTCOME_COLUMNS)
        with Watch(clients) as watch:
            for outcome in watch.forever():
                stream.add(outcome_item(outcome))
    limit = min(listing.limit or _LATEST, _LEDGER_MAX)
    found = [outcome_item(one) for one in ledger(clients, limit)]
    listing.print(listing.chosen(found), OUTCOME_COLUMNS)
    if not found:
        note("the ledger has no outcomes yet; it is written once a minute")
    return 0
