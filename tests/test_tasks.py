"""An lm-eval task file is read as text: found, checked, watched, and not run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from autotune.errors import UsageError
from autotune.tasks import Group, direction_of, find_task, group_of, is_group, on_the_hub, read_task, shipped

TASK = """\
task: tones
dataset_path: json
dataset_kwargs: { data_files: { validation: items.jsonl } }
validation_split: validation
doc_to_text: !function words.prompt
metric_list:
  - { metric: acc, higher_is_better: true }
  - { metric: brier_score }
"""


GROUP = "group: tones\naggregate_metric_list: [{ metric: acc, aggregation: mean }]\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tones.yaml").write_text(TASK, encoding="utf-8")
    (tmp_path / "items.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "words.py").write_text("raise SystemExit('this module was run')\n", encoding="utf-8")
    return tmp_path


def test_a_task_file_is_found_beside_the_sweep_file_with_all_it_needs(root: Path) -> None:
    found = find_task("lm-eval:tones.yaml", root)
    assert found.file == root / "tones.yaml"
    assert {file.name for file in found.files} == {"tones.yaml", "items.jsonl", "words.py"}
    assert not on_the_hub(found)


def test_its_digest_follows_task_code_data_and_metric(root: Path) -> None:
    (root / "base.yaml").write_text("output_type: multiple_choice\n", encoding="utf-8")
    (root / "tones.yaml").write_text(TASK + "include: base.yaml\n", encoding="utf-8")
    seen = {find_task("lm-eval:tones.yaml", root).digest, find_task("lm-eval:tones.yaml@brier_score", root).digest}
    assert len(seen) == 2
    for name in ("tones.yaml", "base.yaml", "items.jsonl", "words.py"):
        (root / name).write_text((root / name).read_text(encoding="utf-8") + "\n# more\n", encoding="utf-8")
        assert find_task("lm-eval:tones.yaml", root).digest not in seen, name
        seen.add(find_task("lm-eval:tones.yaml", root).digest)
    assert read_task(root / "tones.yaml")["output_type"] == "multiple_choice"


def test_the_direction_is_the_tasks(root: Path) -> None:
    assert direction_of("lm-eval:tones.yaml", root) == "maximize"
    assert direction_of("lm-eval:tones.yaml@brier_score", root) == "minimize"
    assert direction_of("lm-eval:hellaswag", root) == "maximize"


def test_a_name_or_data_elsewhere_is_on_the_hub(root: Path) -> None:
    assert on_the_hub(find_task("lm-eval:hellaswag", root))
    (root / "tones.yaml").write_text(TASK.replace("path: json", "path: owner/tones"), encoding="utf-8")
    assert on_the_hub(find_task("lm-eval:tones.yaml", root))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a task file is a mapping"),
        ("- a\n", "a task file is a mapping"),
        ("task: [\n", "tones.yaml:2: data.metric: cannot be read as a task file"),
        (
            "group: tones\ntask: [a, b]\n",
            "the group has a task a, which neither lm-eval nor a file beside it describes",
        ),
        (
            "group: tones\ntask: [arc_easy, piqa]\n",
            "has no score: its file has no aggregate_metric_list; name one of its",
        ),
        (GROUP + "task: []\n", "the group tones has no tasks"),
        (GROUP + "task: [[piqa]]\n", "each part of a group is a name, or a mapping with task or group"),
        (GROUP + "task: [tones]\n", "the group tones is in itself"),
        (GROUP + "task: [arc_esy]\n", "did you mean 'arc_easy'?"),
        (GROUP.replace("mean", "!function words.best") + "task: [piqa]\n", "by their mean, not by words.best"),
        ("dataset_path: json\n", "a task file names one task; write task: <name>"),
        ("task: a\ninclude: other.yaml\n", "includes other.yaml, which is not there"),
        ("task: a\ninclude: tones.yaml\n", "includes itself"),
        (TASK.replace("items.jsonl", "itms.jsonl"), "its data file itms.jsonl is not there"),
    ],
)
def test_what_is_wrong_in_a_task_file_is_told(text: str, says: str, root: Path) -> None:
    (root / "tones.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        find_task("lm-eval:tones.yaml", root)
    assert says in str(caught.value)


def test_a_task_file_that_is_not_there_is_refused_with_the_nearest(root: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no such task file.*did you mean 'tones.yaml'\?"):
        find_task("lm-eval:tonse.yaml", root)


def test_tasks_that_come_with_the_harness_are_found_by_name(root: Path) -> None:
    for name in ("hellaswag", "arc_easy", "gsm8k", "piqa"):
        found = find_task(f"lm-eval:{name}", root)
        assert read_task(found.file)["task"] == name
        assert on_the_hub(found)
    assert direction_of("lm-eval:wikitext", root) == "minimize"
    with pytest.raises(
        UsageError, match=r"this is a tag of several tasks of lm-eval, and has no score, got 'ai2_arc'; .*arc_"
    ):
        find_task("lm-eval:ai2_arc", root)
    with pytest.raises(UsageError, match=r"lm-eval has no such task, got 'helaswag'; did you mean 'hellaswag'\?"):
        find_task("lm-eval:helaswag", root)


def test_every_task_of_the_harness_can_be_read_as_text() -> None:
    spec = find_spec("lm_eval")
    assert spec is not None
    tasks, groups, tags = shipped(Path(str(spec.origin)).parent / "tasks")
    assert len(tasks) > 1000
    assert "mmlu" in groups
    assert {"mmlu_anatomy", "scrolls_qasper"} <= set(tasks)  # with names in quotes, and a class that runs it
    assert "scrolls" not in groups
    assert tags["ai2_arc"] == ("arc_challenge", "arc_easy")
    assert "crows_pairs_french_age" in tags["crows_pairs"]  # from a file that an included file includes
    for name in sorted(tasks)[::97]:
        assert read_task(tasks[name])["task"] == name


def test_without_lm_eval_a_name_is_left_to_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.tasks.find_spec", lambda name: None)
    found = find_task("lm-eval:helaswag", root)
    assert found.files == ()
    assert on_the_hub(found)
    assert direction_of("lm-eval:helaswag", root) == "maximize"
    (root / "both.yaml").write_text(GROUP.replace("tones", "both") + "task: [tones]\n", encoding="utf-8")
    assert [member.config["task"] for member in group_in("lm-eval:both.yaml", root).members] == ["tones"]
    (root / "both.yaml").write_text(GROUP.replace("tones", "both") + "task: [tones, piqa]\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"task piqa is not known without the package lm-eval; pip install .*lm-eval"):
        find_task("lm-eval:both.yaml", root)


def test_a_class_that_names_a_group_for_its_task_is_a_task(root: Path) -> None:
    for name in ("scrolls_quality", "squadv2"):
        found = find_task(f"lm-eval:{name}", root)
        assert group_of(f"lm-eval:{name}", found.file) is None
        assert not is_group(f"lm-eval:{name}", root)
    (root / "own.yaml").write_text("group: set\ntask: own\nclass: !function words.Own\n", encoding="utf-8")
    assert find_task("lm-eval:own.yaml", root).file == root / "own.yaml"
    (root / "both.yaml").write_text(GROUP.replace("tones", "both") + "task: [tones, own]\n", encoding="utf-8")
    assert [member.config["task"] for member in group_in("lm-eval:both.yaml", root).members] == ["tones", "own"]


def test_a_folder_beside_a_group_is_no_file_of_a_task(root: Path) -> None:
    (root / "both.yaml").write_text(GROUP.replace("tones", "both") + "task: [tones]\n", encoding="utf-8")
    (root / "older.yaml").mkdir()
    assert [member.config["task"] for member in group_in("lm-eval:both.yaml", root).members] == ["tones"]


def group_in(metric: str, root: Path) -> Group:
    found = group_of(metric, find_task(metric, root).file)
    assert found is not None
    return found


def test_a_group_of_the_harness_has_the_tasks_of_its_groups_and_tags(root: Path) -> None:
    mmlu, stem = group_in("lm-eval:mmlu", root), group_in("lm-eval:mmlu_stem", root)
    assert (len(mmlu.members), len(stem.members)) == (57, 19)
    assert (mmlu.metric, mmlu.weighted, mmlu.filters) == ("acc", True, ())
    assert {str(member.config["task"]) for member in stem.members} <= {str(one.config["task"]) for one in mmlu.members}
    assert len(find_task("lm-eval:mmlu", root).files) > 57 + 4
    assert on_the_hub(find_task("lm-eval:mmlu", root))
    assert is_group("lm-eval:mmlu", root)
    assert not is_group("lm-eval:arc_easy", root)
    assert group_in("lm-eval:leaderboard@acc_norm", root).metric == "acc_norm"
    with pytest.raises(
        UsageError, match=r"the group mmlu has no metric acc_norm, got 'lm-eval:mmlu@acc_norm'; use one of: acc"
    ):
        find_task("lm-eval:mmlu@acc_norm", root)


def test_a_group_of_ones_own_has_tasks_beside_it_and_what_it_changes_of_them(root: Path) -> None:
    (root / "both.yaml").write_text(
        "group: both\nnum_fewshot: 2\naggregate_metric_list: { metric: brier_score, weight_by_size: false, filter_list: strict }\n"
        "task:\n- tones\n- { task: tones, num_fewshot: 3 }\n- { task: own, dataset_path: json, dataset_kwargs: "
        "{ data_files: more.jsonl } }\n- { group: inner, task: [arc_easy] }\n",
        encoding="utf-8",
    )
    with pytest.raises(UsageError, match=r"both.yaml: data.metric: its data file more.jsonl is not there"):
        find_task("lm-eval:both.yaml", root)
    (root / "more.jsonl").write_text("{}\n", encoding="utf-8")
    code, group = find_task("lm-eval:both.yaml", root), group_in("lm-eval:both.yaml", root)
    assert (group.metric, group.weighted, group.filters) == ("brier_score", False, ("strict",))
    assert [(one.config["task"], one.config["num_fewshot"]) for one in group.members] == [
        ("tones", 2), ("tones", 3), ("own", 2), ("arc_easy", 2),
    ]  # fmt: skip
    assert {"both.yaml", "tones.yaml", "items.jsonl", "more.jsonl", "arc_easy.yaml"} <= {
        file.name for file in code.files
    }
    assert direction_of("lm-eval:both.yaml", root) == "minimize"
    for name in ("both.yaml", "tones.yaml", "items.jsonl", "more.jsonl"):
        before = find_task("lm-eval:both.yaml", root).digest
        (root / name).write_text((root / name).read_text(encoding="utf-8") + "\n# more\n", encoding="utf-8")
        assert find_task("lm-eval:both.yaml", root).digest != before, name
