"""The paper's experiments: each row changes one thing, tables share runs, and other data may take the place."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import EXAMPLES

from fclm_hf.reproduction import ReproductionOptions
from fclm_hf.reproduction.options import find_experiments
from fclm_hf.reproduction.tables import TABLES, list_all_experiments
from fclm_hf.training.objective.settings import ALIGNMENTS, DISTILLATION_IMAGES
from fclm_hf.utils.settings import find_changes


def test_each_experiment_is_a_file_and_each_file_an_experiment() -> None:
    found, expected = (
        {path.name: path.read_bytes() for path in folder.glob("*.yaml")}
        for folder in (find_experiments(), EXAMPLES / "paper")  # the former in the installed package, if there is one
    )
    assert found == expected
    assert sorted(name for name in found if name.startswith("table")) == sorted(
        f"{name}.yaml" for name in list_all_experiments()
    )


@pytest.mark.parametrize("table", ["table4", "table5", "table6"])
def test_rows_of_an_ablation_change_one_thing(table: str) -> None:
    options = ReproductionOptions(table, "data", "out")
    plain = [options.make_arguments(name, 0).to_dict() for name in options.experiments]
    for each in plain[:-1]:
        changes = {text.split(" was ")[0] for text in find_changes(plain[-1], each)} - {"output_dir"}
        assert changes
        prompts = {f"prompts.kinds.{kind}" for kind in ("text", "box", "point")} | {"settings.prompts"}
        assert changes in ({"settings.distillation"}, {"settings.alignment"}) or changes <= prompts, changes


def test_rows_cover_what_the_objective_offers() -> None:
    found: dict[str, list[str]] = {}
    for table in ("table4", "table5", "table6"):
        options = ReproductionOptions(table, "data", "out")
        for name in options.experiments:
            settings = options.make_arguments(name, 0).model.settings
            for field, value in asdict(settings).items():
                if field in ("distillation", "alignment", "prompts"):
                    found.setdefault(f"{table} {field}", []).append(value)
    assert sorted(found["table4 distillation"]) == sorted(DISTILLATION_IMAGES)
    assert sorted(found["table5 alignment"]) == sorted(ALIGNMENTS)
    assert sorted(found["table6 prompts"]) == ["box", "point", "text"]


def test_tables_share_a_run() -> None:
    shared = {
        ReproductionOptions(table, "data", "out").make_arguments(name, 2).run.output_dir
        for table, name in (
            ("table2", "table2_refmatte"),
            ("table4", "table4_full"),
            ("table5", "table5_full"),
            ("table6", "table6_text"),
        )
    }
    assert shared == {"out/runs/table2_refmatte/seed2"}
    assert (
        ReproductionOptions("table6", "data", "out")
        .make_arguments("table6_box", 0)
        .run.output_dir.endswith("runs/table6_box/seed0")
    )


def test_other_data_keep_what_a_row_changes(tmp_path: Path) -> None:
    base = {
        "model": "lite",
        "sources": [{"path": "json", "data_files": "mine/index.json", "kind": "rgba"}],
        "backgrounds": [{"path": "user/landscapes", "kind": "background"}],
        "settings": {"kd_weight": 2, "distillation": "none"},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    options = ReproductionOptions(
        "table4", "data", "out", base=tmp_path / "base.yaml", flags=["--learning_rate", "1e-3"]
    )
    arguments = options.make_arguments("table4_vanilla_kd", 1)
    assert (arguments.model.model, arguments.run.learning_rate, arguments.run.seed) == ("lite", 1e-3, 1)
    assert arguments.data.sources[0].data_files == "data/mine/index.json"
    assert arguments.data.backgrounds[0].path == "user/landscapes"
    assert (arguments.model.settings.kd_weight, arguments.model.settings.distillation) == (2, "vanilla")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "table7"}, r"table must be one of table1, .*, got 'table7'"),
        ({"rows": ["adverse"]}, r"rows must be any of without_alignment, adversarial, transport, full for table5, got"),
        ({"rows": []}, "rows and seeds must be given"),
        ({"seeds": [0, 0]}, "seeds different and not negative"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"dtype": "float8"}, "dtype must be one of float32"),
        ({"flags": ["--learnin_rate", "1"]}, "does not take 'learnin_rate': did you mean learning_rate"),
    ],
)
def test_wrong_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReproductionOptions(**{"table": "table5", "data": "data", "out": "out", **changes})


def test_figures_of_the_paper_fit_their_columns() -> None:
    from fclm_hf.reproduction.tables import list_paper_figures

    counts = {name: sum(len(list_paper_figures(row)) for row in table.rows) for name, table in TABLES.items()}
    assert counts == {"table1": 24, "table2": 38, "table3": 162, "table4": 24, "table5": 16, "table6": 12}
