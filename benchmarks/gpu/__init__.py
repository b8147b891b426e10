"""What `python -m vos_deploy.benchmarks gpu` does; the command itself is in `command.py`."""
