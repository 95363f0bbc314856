"""Deliveries and outcomes, in the order in which a delivery passes.

runtime.py   the one wrapper round a handler: request in, status out
messages.py  a Pub/Sub push or a CloudEvent becomes a typed message; forged follow-up messages
             are refused
outcomes.py  the record that every input ends in, published and logged
"""
