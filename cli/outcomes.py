"""`outcomes`: what became of every input."""

import click

from cli.clients import Clients
from cli.errors import CliError
from cli.options import OUTCOME_COLUMNS, outcome_item, system_option
from cli.output import Listing, Stream, listing_options
from cli.watch import Watch, ledger

_LATEST = 50
_LEDGER_MAX = 100_000


@click.command()
@click.option("--follow", is_flag=True, help="Show each new outcome as it comes, until Ctrl-C.")
@listing_options(limit=_LATEST)
@system_option
def outcomes(clients: Clients, follow: bool, listing: Listing) -> int:
    """Show what became of the inputs: the ledger's latest, or each new one as it comes.

    The ledger is written once a minute: what happened since is not in it yet.
    """
    if follow:
        if listing.sort_by:
            raise CliError("--sort-by needs an end: it does not go with --follow")
        stream = Stream(listing.format, OUTCOME_COLUMNS)
        with Watch(clients) as watch:
            for outcome in watch.forever():
                stream.add(outcome_item(outcome))
    limit = min(listing.limit or _LATEST, _LEDGER_MAX)
    found = [outcome_item(one) for one in ledger(clients, limit)]
    listing.print(listing.chosen(found), OUTCOME_COLUMNS)
    return 0
