"""For all tests: one thread each, as several processes run them side by side; Ctrl-C works."""

import os
import signal

# Before anything imports PyTorch. Threads of several processes that wait for each other take
# many times as long on networks as small as those here.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has it ignored, and some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
