"""Where untrusted bytes are decoded: worker processes that have given up all they do not need.

``lockdown`` is what a worker does to itself; the other modules start workers, talk to them, watch them and end them.
"""
