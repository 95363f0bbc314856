"""Deliveries and outcomes, in the order in which a delivery passes.

runtime            the one wrapper round a handler: request in, status out
messages           a Pub/Sub push or a CloudEvent becomes a typed message; follow-up messages are
                   told from commands
outcomes           the record that every input ends in, published and logged
"""
