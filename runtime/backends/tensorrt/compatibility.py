"""Whether a plan runs here: engines are for one TensorRT and one GPU."""

from vos_deploy.bundle import Bundle
from vos_deploy.errors import ModelError
from vos_deploy.manifest import Engines
from vos_deploy.plan import build_command


def engines_of(bundle: Bundle) -> Engines:
    """What the plan was built with. Raises ModelError for a folder of ONNX graphs."""
    if bundle.engine is None:
        plan = bundle.path.with_suffix(".plan")
        raise ModelError(
            f"{bundle.path} is a folder of ONNX graphs, but TensorRT needs a plan; build one with: "
            f"{build_command(plan)}"
        )
    return bundle.engine


def rebuild_command(bundle: Bundle) -> str:
    """The command that builds a plan again, for the TensorRT and the GPU that are here."""
    engine = engines_of(bundle)
    options = [f"--runtime {engine.runtime}", f"--precision {bundle.precision}"]
    if bundle.size is not None:
        options.append("--size {}x{}".format(*bundle.size))
    options += [f"--max-objects {engine.max_objects}", f"--memory-frames {engine.memory_frames}"]
    options += ["--fused-read"] * engine.fused_read + ["--tf32"] * engine.tf32
    return build_command(bundle.path, *options)


def check(bundle: Bundle, version: str, gpu: str, compute_capability: str) -> None:
    """Raise ModelError, saying how to build it again, unless a plan is for this TensorRT version
    and this GPU."""
    engine = engines_of(bundle)
    pairs = [
        (engine.runtime, engine.version, version),
        ("GPU", engine.gpu, gpu),
        ("compute capability", engine.compute_capability, compute_capability),
    ]
    differing = [(what, built, here) for what, built, here in pairs if built not in (None, here)]
    if differing:
        built_for = ", ".join(f"{what} {built}" for what, built, _ in differing)
        found = ", ".join(f"{what} {here}" for what, _, here in differing)
        raise ModelError(
            f"{bundle.path} was built for {built_for}, but this machine has {found}; rebuild it "
            f"with: {rebuild_command(bundle)}"
        )
