"""What arrives and what is reported, in the order in which a delivery passes.

runtime            the one wrapper round a handler: request in, status out
messages           a Pub/Sub push or a CloudEvent becomes a typed message
commands           what a message asks for, checked key by key
requests           what a delete or an export asks for
request_state      what became of a request, for who asks by HTTP
outcomes           the record that every input ends in, published and logged
"""
