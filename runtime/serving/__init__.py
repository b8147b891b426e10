"""An HTTP interface for programs: frames and marks in, labels out, many sessions on one model.

`application.py` has the routes, `session.py` one stream of frames, `workers.py` the threads that
inference runs in. The server's packages are imported only when `vos-deploy-serve` runs.
"""
