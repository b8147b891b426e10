from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from vos_deploy.errors import InputError
from vos_deploy.methods import METHODS, find_part
from vos_deploy.options import build
from vos_deploy.train.cli import StageList, check, main, parse
from vos_deploy.train.methods.stm.stages import STMOptions
from vos_deploy.train.options import TrainOptions, read_toml, to_toml


def test_later_layers_win(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('method = "stm"\nstage = "main"\nbatch = 7\n[learning]\nweight_decay = 1\n')
    run = parse(["--config", str(config), "--weight-decay", "0.5", "--no-amsgrad"])
    assert (run.method, run.name) == ("stm", "main")
    options = run.options
    assert options.epochs == 260  # the stage
    assert options.batch == 7  # the file, over the stage's 1
    assert options.weight_decay == 0.5  # the command line, over the file
    assert options.gamma == 0.1  # the default
    # The command line names the stage too.
    assert parse(["--config", str(config), "--stage", "pretrain"]).options.epochs == 0


@pytest.mark.parametrize("method", METHODS)
def test_every_option_survives_toml(method: str, tmp_path: Path) -> None:
    training = find_part(method, "TRAINING")
    for name, stage in training.stages.items():
        options = build(training.options, [("stage", stage.values)])
        path = tmp_path / f"{name}.toml"
        path.write_text(to_toml(options, method=method, stage=name))
        assert tomllib.loads(path.read_text())["stage"] == name
        again = read_toml(path)
        assert (again.pop("method"), again.pop("stage")) == (method, name)
        assert build(training.options, [("file", again)]) == options


def test_print_config_is_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--method", "rde", "--stage", "2", "--davis", 'a "b', "--skip", "0:3", "0.5:1"]
    assert main([*arguments, "--print-config"]) == 0
    path = tmp_path / "printed.toml"
    path.write_text(capsys.readouterr().out)
    assert parse(["--config", str(path)]).options == parse(arguments).options


def test_a_method_alone_lists_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    for method in METHODS:
        training = find_part(method, "TRAINING")
        assert main(["--method", method]) == 0
        printed = capsys.readouterr().out
        for name, stage in training.stages.items():
            assert f"  {name:10} {stage.summary}" in printed
    with pytest.raises(StageList):
        parse([])


def test_data_alone_are_for_the_default_stage() -> None:
    assert parse(["--davis", "D"]).name == "mixed"
    assert parse(["--method", "gfrtm", "--davis", "D"]).name == "main"
    with pytest.raises(InputError, match="give the --stage of rde: 0, 1, 2, 3"):
        parse(["--method", "rde", "--davis", "D"])


def test_help_shows_the_values_of_the_stage(capsys: pytest.CaptureFixture[str]) -> None:
    for stage, batch in (("0", 16), ("2", 8)):
        with pytest.raises(SystemExit):
            main(["--method", "rde", "--stage", stage, "--help"])
        printed = " ".join(capsys.readouterr().out.split())
        assert f"batch size per process, in clips (default: {batch})" in printed
        assert "--value-kl" in printed and "--stem" not in printed


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("batchs = 3", "no option 'batchs'; did you mean batch?"),
        ("batch = 2.5", "batch must be an int, got 2.5"),
        ("batch = true", "batch must be an int, got True"),
        ('amp = "fp8"', "amp must be one of none, fp16, bf16, got 'fp8'"),
        ("batch = ", "is not TOML"),
        ('stage = "4"', "stage must be one of"),
        ('method = "sam"', "unknown method 'sam'"),
    ],
)
def test_wrong_configurations(
    content: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(content)
    assert main(["--config", str(path), "--davis", "D"]) == 2
    assert sentence in capsys.readouterr().err
    assert main(["--config", str(tmp_path / "none.toml")]) == 2
    assert "no configuration at" in capsys.readouterr().err


def test_types_of_values() -> None:
    options = build(
        TrainOptions, [("", {"crop": 384, "davis": "one", "epochs": 3, "skip": [3, 15]})]
    )
    assert options.size == (384, 384)
    assert options.davis == (Path("one"),)
    assert options.epochs == 3.0 and isinstance(options.epochs, float)
    assert options.skip == ("3", "15")
    assert TrainOptions(crop="480x854").size == (480, 854)
    for wrong in ("384x", "a", "1x2x3", "0"):
        with pytest.raises(InputError, match="must be a side, 384, or a size"):
            TrainOptions(crop=wrong).size  # noqa: B018


def test_stages_need_their_data(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match="stage 1 of rde needs --bl30k"):
        check(parse(["--method", "rde", "--stage", "1", "--output", "x"]))
    check(parse(["--method", "stm", "--stage", "main", "--davis", "D"]))
    assert "meant for --youtube too" in caplog.text


def test_options_of_a_method_join_the_common_ones() -> None:
    assert issubclass(STMOptions, TrainOptions)
    assert "--key-dim" in parse_help(["--method", "stm"])
    assert "--gate-m1" in parse_help(["--method", "gfrtm"])


def parse_help(arguments: list[str]) -> str:
    from vos_deploy.train.cli import parser

    return parser(arguments).format_help()


def test_slow_parameters_have_a_group_of_their_own() -> None:
    pytest.importorskip("torch")
    from vos_deploy.train.task import prefixes_of

    assert prefixes_of(("key_encoder=0.1", "decoder.=2")) == {"key_encoder": 0.1, "decoder.": 2.0}
    with pytest.raises(InputError, match=r"--slow trunk: must be PREFIX=FACTOR"):
        prefixes_of(("trunk",))
    options = find_part("rde", "TRAINING").options(
        backbone="resnet10", value_dim=16, decoder_width=16, compress=False,
        slow=("key_encoder.=0.25",),
    )  # fmt: skip
    task = find_part("rde", "TASK").build(options)
    slow, usual = task.parameter_groups()
    encoder = set(map(id, task.model.key_encoder.parameters()))
    assert (slow["rate"], usual["rate"]) == (0.25, 1.0)
    assert {id(p) for p in slow["params"]} == encoder
    assert len(slow["params"]) + len(usual["params"]) == len(list(task.model.parameters()))
