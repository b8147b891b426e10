"""Both reads are timed on the same tokens, and said to agree."""

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests.rmnet import exported
from vos_deploy.benchmarks.cli import main
from vos_deploy.bundle import demonstration_model
from vos_deploy.errors import InputError

SMALL = ["read", "--memory", "3", "--object", "10x12", "--repeats", "2", "--threads", "1"]


def test_both_reads_agree(tmp_path, capsys):
    arguments = ["--model", str(exported()), "--size", "100x150", "--output", str(tmp_path)]
    assert main([*SMALL, *arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    facts = content["conditions"]
    assert [row["Read"] for row in content["rows"]] == ["dense", "sparse"]
    assert facts["largest difference"] < 1e-5
    # 10x12 pixels and 64 around, in 7 rows and 10 columns of tokens, padded by 6 and 5.
    assert facts["query tokens"] == "54 of 70"
    assert json.loads((tmp_path / "read.json").read_text()) == content
    assert (tmp_path / "read.csv").read_text().startswith("Read,median ms")


def test_official_widths_without_a_model(capsys):
    assert main([*SMALL, "--size", "200x300"]) == 0
    printed = capsys.readouterr().out
    assert "speed-up" in printed
    assert "memory tokens" in printed


def test_model_of_another_method():
    with pytest.raises(InputError, match="found one of stm"):
        main([*SMALL, "--model", str(demonstration_model())])
