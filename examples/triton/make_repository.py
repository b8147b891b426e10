"""A model repository for Triton Inference Server, made from a model folder.

    python examples/triton/make_repository.py stm/ repository/
    tritonserver --model-repository repository/

Each graph becomes a model of Triton's ONNX Runtime backend, such as `stm_encoder`: Triton runs
single graphs. What lives longer than a call, the memory and the order of the graphs, stays with
the client: `runtime/trackers/` shows it for each method.
"""

import argparse
import shutil
import sys
from pathlib import Path

from vos_deploy.bundle import Bundle, Graph, TensorSpec
from vos_deploy.errors import InputError, VosDeployError

TYPES = {
    "bool": "TYPE_BOOL",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
}


def make_repository(model: Path, repository: Path) -> list[Path]:
    """Write the folders of all graphs; they must not be there. Returns them.

    Raises InputError for a plan, for a tensor that Triton has no type for, and for a folder that
    is there already.
    """
    bundle = Bundle.load(model)
    if bundle.engine is not None:
        raise InputError(f"expected a model folder of ONNX graphs, got the plan {model}")
    folders = {graph: repository / f"{bundle.path.name}_{graph}" for graph in bundle.graphs}
    for folder in folders.values():
        if folder.exists():
            raise InputError(f"{folder} is there already: choose another repository")
    for graph, folder in folders.items():
        text = config(folder.name, bundle.graphs[graph])
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(text, encoding="utf-8")
        shutil.copyfile(bundle.graph_path(graph), folder / "1" / "model.onnx")
    return list(folders.values())


def config(name: str, graph: Graph) -> str:
    """The `config.pbtxt` of a graph. Its tensors have no batch dimension."""
    parts = [f'name: "{name}"', 'platform: "onnxruntime_onnx"', "max_batch_size: 0"]
    parts += [f"input {tensor(spec)}" for spec in graph.inputs]
    parts += [f"output {tensor(spec)}" for spec in graph.outputs]
    return "\n".join(parts) + "\n"


def tensor(spec: TensorSpec) -> str:
    """Name, type and dimensions; -1 is one of any length."""
    if spec.dtype not in TYPES:
        raise InputError(f"Triton has no type for {spec.dtype}, that of {spec.name}")
    dims = ", ".join(str(side) if isinstance(side, int) else "-1" for side in spec.shape)
    return f'{{ name: "{spec.name}" data_type: {TYPES[spec.dtype]} dims: [ {dims} ] }}'


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("repository", type=Path, help="folder for the models of Triton")
    args = parser.parse_args(arguments)
    try:
        for folder in make_repository(args.model, args.repository):
            print(folder)
    except VosDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
