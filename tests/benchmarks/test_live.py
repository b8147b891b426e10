"""The benchmark of live runs: what it counts. How fast it is, is not tested."""

from __future__ import annotations

import json

from vos_deploy.benchmarks.cli import main


def test_every_frame_is_followed_or_dropped(capsys) -> None:
    arguments = ["--frames", "200", "--factor", "3", "--size", "32x48", "--threads", "1"]
    main(["live", *arguments, "--json"])  # on a busy machine it may be out of its bounds
    data = json.loads(capsys.readouterr().out)
    facts = data["conditions"]
    assert facts["captured"] == facts["followed"] + facts["dropped"] == 200
    assert facts["dropped"] > 0
    assert facts["all frames accounted for"] is True
    last = data["rows"][-1]
    assert last["followed"] + last["dropped"] >= last["captured"] - 1


def test_sizes_are_pairs(capsys) -> None:
    assert main(["live", "--size", "120"]) == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err
