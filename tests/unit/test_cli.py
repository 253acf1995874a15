"""What a user types, and what comes back: exit codes, one sentence, no traceback."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from maag.cli.main import commands, main
from maag.config import codec
from maag.config.schema import Config

HEAVY = ("torch", "ray", "monai", "numpy", "pydantic", "rich", "matplotlib", "onnx")


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def all_commands() -> list[tuple[str, ...]]:
    names: list[tuple[str, ...]] = []
    for name, command in commands.commands.items():
        names += [(name, sub) for sub in getattr(command, "commands", {})] or [(name,)]
    return names


@pytest.mark.parametrize("words", [(), *all_commands()], ids=" ".join)
def test_every_command_has_help_and_imports_nothing_heavy_for_it(words: tuple[str, ...]) -> None:
    program = (
        "import sys\nfrom maag.cli import main\n"
        f"try:\n    main({[*words, '--help']!r})\nexcept SystemExit as end:\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    sys.exit(f'imported {heavy}' if heavy else end.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_a_wrong_setting_is_named(phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "run")
    assert run(*words, "--set", "optim.lr=-1") == 2
    assert "optim.lr: input should be greater than 0, got -1" in capsys.readouterr().err
    assert run(*words, "--set", "optim.nonsense=1") == 2
    assert "optim.nonsense: no such setting" in capsys.readouterr().err
    assert run(*words, "--set", "optim.lr") == 2
    assert "expected section.key=value" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_the_device_cannot_do_is_refused_before_a_run_is_begun(
    phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "none")
    words = ("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "run", "--preset", "fast")
    assert run(*words, "--device", "cpu", "--set", "train.compile=true") == 2
    assert "train.compile=true: on a CPU it needs a C++ compiler" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_missing_data_say_how_to_make_some(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("train", "--dataset", "acdc", "--data", tmp_path / "none") == 2
    error = capsys.readouterr().err
    assert "expected patientNNN" in error
    assert f"`maag data phantom --dataset acdc --out {tmp_path / 'none'}`" in error
    (tmp_path / "empty").mkdir()
    assert run("data", "check", "--dataset", "acdc", "--data", tmp_path / "empty") == 2
    assert "no case of acdc in it" in capsys.readouterr().err


def test_a_check_of_bad_cases_alone_has_no_spacing_to_tell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for folder, value in (("images", 100), ("masks", 9)):
        (tmp_path / folder).mkdir()
        Image.new("L", (32, 32), value).save(tmp_path / folder / "a.png")
    assert run("data", "check", "--dataset", "folders", "--data", tmp_path) == 1
    error = capsys.readouterr().err
    assert "1 problem, " in error
    assert "Spacing" not in error
    assert "Shape" not in error


def test_a_run_is_never_overwritten(
    phantom_dir: Path, tiny_words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert run("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path, *tiny_words) == 2
    assert "already holds a run; add --resume" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json", "checkpoints/best.safetensors", "split.json"])
def test_nor_is_what_a_search_or_somebody_else_has_there(
    name: str,
    phantom_dir: Path,
    tiny_words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    there = tmp_path / "there" / name
    there.parent.mkdir(parents=True)
    there.write_text("{}")
    for command in ("train", "tune"):
        assert run(command, "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "there", *tiny_words) == 2
        assert f"holds {name}, which" in capsys.readouterr().err
    assert [path for path in (tmp_path / "there").rglob("*") if path.is_file()] == [there]
    assert there.read_text() == "{}"


def test_a_search_in_a_runs_folder_is_not_told_to_resume_it(
    phantom_dir: Path, tiny_words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert run("tune", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path, *tiny_words) == 2
    assert "holds a run, whose files a search would replace; choose another --out" in capsys.readouterr().err


def test_a_path_that_a_script_left_empty_is_not_the_folder_here(
    phantom_dir: Path, tiny_words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("--data", phantom_dir, "--out", ""), ("--data", "")):
        assert run("train", "--dataset", "acdc", *words, *tiny_words) == 2
        assert "it is empty; write '.'" in capsys.readouterr().err
    for words in (("", "--out", "labels"), ("scans", "--out", "")):
        assert run("predict", *words, "--model", "model", "--workers", 2) == 2
        assert "it is empty; write '.'" in capsys.readouterr().err


def test_a_run_that_is_there_is_named_before_data_are_prepared(
    phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    words = ("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path, "--preset", "fast")
    assert run(*words, "--scribbles", "nope") == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize("refused", [("--scribbles", "nope"), ("--scribbles", "simulated:foo"), ("--teacher", "nope")])
def test_a_training_that_is_refused_leaves_no_folder(
    refused: tuple[str, str], phantom_dir: Path, tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAAG_CACHE", str(tmp_path / "cache"))
    assert run("train", "--dataset", "acdc", "--data", phantom_dir, *tiny_words, *refused) == 2
    assert not (tmp_path / "runs").exists()


def test_there_must_be_something_to_resume(
    phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "none", "--resume")
    assert run(*words) == 2
    assert "no run here to resume" in capsys.readouterr().err
    assert run(*words, "--set", "optim.lr=1") == 2


def test_an_unwritable_output_is_one_sentence(
    phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    assert run("train", "--dataset", "acdc", "--data", phantom_dir, "--preset", "fast", "--out", out) == 1
    error = capsys.readouterr().err
    assert f"Error: cannot write {out}: a part of this path is a file" in error
    assert "Traceback" not in error


def test_settings_are_listed_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "show") == 0
    shown = capsys.readouterr().err
    for setting in codec.leaves(Config()):
        assert setting.path in shown
        assert setting.help


def test_settings_as_json_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "show", "--preset", "fast", "--set", "gates.levels=[0, 1]", "--json") == 0
    config = codec.from_document(json.loads(capsys.readouterr().out), "stdout")
    assert config.gates.levels == (0, 1)
    assert codec.from_dict(codec.to_dict(config)) == config


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data.size_px": "[100, 16]"}, "data.size_px: height and width must be multiples of 16"),
        ({"gates.levels": "[0, 0]"}, "gates.levels: each level may stand once"),
        ({"discriminator.scales": "[1]"}, "discriminator.scales: 0 must be there"),
        ({"data.unlabelled_value": "2"}, "data.unlabelled_value: 2 is the value of class 'MYO'"),
        ({"optim.lr_min": "1"}, "optim.lr_min: must not exceed lr"),
        ({"loss.dynamic_balance": "perhaps"}, "loss.dynamic_balance: expected true or false"),
    ],
)
def test_rules_of_settings(change: dict[str, str], sentence: str) -> None:
    from maag.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        codec.override(Config(), change)
    assert sentence in str(caught.value)


def test_wrong_words_are_wrong_usage() -> None:
    assert run("segment") == 2
    assert run("train", "--dataset", "nonsense") == 2
    assert run("train", "--debug-me") == 2


def test_debug_shows_where_and_keeps_the_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("train", "--dataset", "acdc", "--data", tmp_path / "none", "--debug") == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "Error: " in shown.splitlines()[-1]


@pytest.mark.parametrize(("option", "kind"), [("--config", "config.json"), ("--split-file", "split.json")])
def test_a_file_that_is_none_of_its_kind_is_wrong_usage(
    option: str, kind: str, phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no JSON")
    (tmp_path / "other").write_text('{"nonsense": 1}')
    (tmp_path / "list").write_text("[]")
    for given, sentence in (
        (tmp_path / "nope", f"there is no such file; give a {kind}"),
        (tmp_path, f"it is a folder; give a {kind}"),
        (tmp_path / "text", "it is not JSON"),
        (tmp_path / "other", f"{tmp_path / 'other'}: "),
        (tmp_path / "list", f"{tmp_path / 'list'}: "),
    ):
        assert run("train", "--dataset", "acdc", "--data", phantom_dir, option, given) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("done", "failed", "sentence"),
    [
        (0, 1, "the only volume failed, nothing was done: broken"),
        (0, 2, "all 2 volumes failed, nothing was done; the first: broken"),
        (3, 1, "1 volume failed, the rest are done; the first: broken"),
    ],
)
def test_how_many_volumes_failed_is_told_as_it_is(done: int, failed: int, sentence: str) -> None:
    from deploy.predicting.batch import Outcome
    from deploy.predicting.ledger import Entry
    from maag.cli.predict import tell_failures

    entry = Entry(
        source="a",
        target="a",
        source_version=None,
        model="m",
        target_md5=None,
        finished_at="",
        seconds=0,
        error="broken",
    )
    assert tell_failures(Outcome(done=done, skipped=0, failed=(entry,) * failed)) == sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--shapes-dataset", "chaos"), "it is the layout of --shapes, which is not given"),
        (("--wait", 3), "--wait 3: only workers of a cluster are waited for"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    words: tuple[object, ...], sentence: str, phantom_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("train", "--dataset", "acdc", "--data", phantom_dir, "--out", tmp_path / "run", *words) == 2
    assert sentence in capsys.readouterr().err


def test_nobody_waits_for_workers_that_are_not_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run("predict", tmp_path, "--model", tmp_path, "--out", tmp_path / "out", "--wait", 3) == 2
    assert "--wait 3: only workers of a cluster are waited for" in capsys.readouterr().err


def test_labels_of_others_are_not_refined(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for refinement in ("--flips", "--rotations", "--largest-component"):
        assert run("evaluate", "--dataset", "acdc", "--predictions", tmp_path, refinement) == 2
    assert "leave them out with --predictions" in capsys.readouterr().err


def test_commands_that_are_proposed_can_be_pasted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "Übung [1]"
    assert run("data", "phantom", "--dataset", "acdc", "--out", folder, "--cases", 4) == 0
    assert f"maag data check --dataset acdc --data '{folder}'" in capsys.readouterr().err
    assert run("train", "--dataset", "acdc", "--data", tmp_path / "not 1") == 2
    assert f"--out '{tmp_path / 'not 1'}'`" in capsys.readouterr().err


def test_a_stand_in_that_is_proposed_can_be_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    taken = tmp_path / "data"
    taken.mkdir()
    (taken / "notes.txt").write_text("of mine")
    for expected in (tmp_path / "lvsc-phantom", tmp_path / "lvsc-phantom-2"):
        assert run("data", "check", "--dataset", "lvsc", "--data", taken) == 2
        words = shlex.split(capsys.readouterr().err.partition("`maag ")[2].partition("`")[0])
        assert words[-1] == str(expected)
        assert run(*words, "--cases", 4) == 0
        capsys.readouterr()


def test_the_parts_of_a_split_are_told_of_one_patient_and_of_many(capsys: pytest.CaptureFixture[str]) -> None:
    from maag.cli.terminal import TrainingDisplay
    from maag.data.splits import Split

    split = Split(scheme="own", scribbled=("a", "b"), unlabelled=("c",), shapes=("d",), val=("e",))
    TrainingDisplay(Path("run"), Config(), split, "digest", "cpu")
    assert (
        "Patients: 2 to train with scribbles, 1 unlabelled, 1 for the discriminator's masks, 1 to validate, 0 held out "
        "for the test"
    ) in " ".join(capsys.readouterr().err.split())


def test_a_check_says_what_its_counts_are_of(phantom_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "check", "--dataset", "acdc", "--data", phantom_dir) == 0
    said = capsys.readouterr().err
    assert "masks with it" in said  # a set of scribbles alone has none, and yet strokes of each class
    assert "slices scribbled" in said
