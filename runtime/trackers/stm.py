"""STM: Video Object Segmentation using Space-Time Memory Networks (Oh et al., ICCV 2019)."""

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.options import Options
from vos_deploy.padding import padded_size

from ..backends import Backend
from ..memory.bank import MemoryBank, MemoryPolicy
from .own_keys import OwnKeys


class STM(OwnKeys[MemoryBank]):
    """The memory of `OwnKeys`, read whole: a softmax over all tokens of an object's bank."""

    graphs = ("encoder", "memorize", "memory_read", "decoder")

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: Options
    ) -> None:
        super().__init__(backend, size, policy, options, padded_to=_padded_to(backend.bundle))

    @classmethod
    def check_boxes(cls, bundle: Bundle, options: Options, size: tuple[int, int] | None) -> None:
        super().check_boxes(bundle, options, size)
        if size is not None and padded_size(size, _padded_to(bundle)) != padded_size(size):
            raise InputError(
                "decode_in_boxes must have a working size of multiples of 16 for this network, "
                f"which does not pad frames, got {size[0]}x{size[1]}: choose another size"
            )

    def new_bank(self) -> MemoryBank:
        return MemoryBank(*self.bank_arguments())

    def segment(self) -> None:
        self.encode()
        for row, bank in enumerate(self.banks):
            query = {"query_key": self.query_key}
            memory = {"memory_key": bank.keys, "memory_value": bank.values}
            self.backend.run("memory_read", {**query, **memory}, {"readout": self.readout[row]})
        self.decode()


def _padded_to(bundle: Bundle) -> int:
    """Some variants of the network take frames as they are."""
    return int(bundle.config.get("stride", 1))


TRACKER = STM
