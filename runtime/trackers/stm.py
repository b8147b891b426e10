"""STM: Video Object Segmentation using Space-Time Memory Networks (Oh et al., ICCV 2019)."""

from vos_deploy.options import Options

from ..backends import Backend
from ..memory.bank import MemoryBank, MemoryPolicy
from .own_keys import OwnKeys


class STM(OwnKeys[MemoryBank]):
    """The memory of `OwnKeys`, read whole: a softmax over all tokens of an object's bank."""

    graphs = ("encoder", "memorize", "memory_read", "decoder")

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: Options
    ) -> None:
        # Some variants of the network take frames as they are.
        stride = int(backend.bundle.config.get("stride", 1))
        super().__init__(backend, size, policy, options, padded_to=stride)

    def new_bank(self) -> MemoryBank:
        return MemoryBank(*self.bank_arguments())

    def segment(self) -> None:
        self.encode()
        for row, bank in enumerate(self.banks):
            query = {"query_key": self.query_key}
            memory = {"memory_key": bank.keys, "memory_value": bank.values}
            self.backend.run("memory_read", {**query, **memory}, {"readout": self.readout[row]})
        self.decode()


TRACKER = STM
