"""A PyCUDA that writes down what is asked of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

MiB = 2**20


class Driver(SimpleNamespace):
    """`pycuda.driver`, whose memory is bytes by address and whose copies happen at the end."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    def __init__(self, total: int = 64 * MiB) -> None:
        super().__init__(pycuda_log=[])
        log, memory, pending = self.pycuda_log, {}, []
        self.memory, self.pending = memory, pending
        driver = self

        def catch_up() -> None:
            while pending:
                pending.pop(0)()

        class Allocation(int):
            def free(self) -> None:
                log.append(f"free {int(self)}")
                del memory[int(self)]

        class Context:
            def push(self) -> None:
                log.append("push")

            def pop(self) -> None:
                log.append("pop")

            def detach(self) -> None:
                log.append("detach")

        class Stream:
            handle = 55

            def synchronize(self) -> None:
                log.append("synchronize")
                catch_up()

        class Event:
            def __init__(self) -> None:
                log.append("event")
                self.waits_for: list[Any] = []

            def record(self, stream: Any) -> Any:
                self.waits_for = pending[-1:]
                return self

            def synchronize(self) -> None:
                if any(work in pending for work in self.waits_for):
                    log.append("wait for the upload")
                    catch_up()

            def time_since(self, start: Any) -> float:
                return 2.5

        class Device:
            def __init__(self, index: int) -> None:
                assert index == 0

            @staticmethod
            def count() -> int:
                return 1

            def name(self) -> str:
                return "NVIDIA Test"

            def compute_capability(self) -> tuple[int, int]:
                return (8, 7)

            def retain_primary_context(self) -> Context:
                log.append("retain")
                return Context()

        def mem_alloc(size: int) -> Allocation:
            assert size > 0
            if sum(map(len, memory.values())) + size > total:
                raise driver.MemoryError("cuMemAlloc failed: out of memory")
            address = 256 * (1 + max([*memory, 0]) // 256) + max(
                map(len, memory.values()), default=0
            )
            memory[address] = bytearray(size)
            return Allocation(address)

        def write(address: int, source: Any, stream: Any) -> None:
            block = max(a for a in memory if a <= address)

            def do() -> None:
                content = bytes(source)
                memory[block][address - block : address - block + len(content)] = content

            pending.append(do)

        def read(target: Any, address: int, stream: Any) -> None:
            block = max(a for a in memory if a <= address)

            def do() -> None:
                start = address - block
                target[:] = np.frombuffer(memory[block], np.uint8)[start : start + len(target)]

            pending.append(do)

        self.Device, self.Stream, self.Event = Device, Stream, Event
        self.init = lambda: log.append("init")
        self.mem_alloc, self.memcpy_htod_async, self.memcpy_dtoh_async = mem_alloc, write, read
        self.memcpy_dtod_async = lambda target, source, size, stream: write(
            target, memoryview(memory[source])[:size], stream
        )
        self.pagelocked_empty = np.empty
        self.mem_get_info = lambda: (3 * MiB, 10 * MiB)
