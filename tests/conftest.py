"""For all tests: one thread each, as several processes run them side by side."""

import os

# Before anything imports PyTorch. Threads of several processes that wait for each other take
# many times as long on networks as small as those here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
