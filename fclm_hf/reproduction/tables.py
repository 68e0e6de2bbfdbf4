"""The tables of the paper as data: their rows and figures, and the runs and tests that make rows of ours."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Benchmark:
    """A data set that runs are tested on.

    Attributes:
        title: Its name in tables.
        folder: Its folder below that of all data sets.
        layout: Name of its layout for [`~fclm_hf.evaluation.EvaluationOptions`].
        split: Split, if it has several.
        metrics: Names of the metrics that tables show, in their order.
    """

    title: str
    folder: str
    layout: str
    split: str | None
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """A run and how it is tested.

    Attributes:
        experiment: Name of the configuration of the run, without suffix.
        benchmark: Key of BENCHMARKS.
        prompt: Kind of prompt.
    """

    experiment: str
    benchmark: str
    prompt: str


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: What the paper calls it.
        figures: Figures of the paper by benchmark, in the order of its metrics; None where it has none.
        measurements: How the row is made here; empty for methods of others.
    """

    name: str
    figures: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        title: Its caption.
        benchmarks: Keys of BENCHMARKS, in the order of its columns.
        rows: Its rows.
        figure: Figure of the paper that belongs to it: "figure4", "figure5", "figure6" or None.
    """

    title: str
    benchmarks: tuple[str, ...]
    rows: tuple[Row, ...]
    figure: str | None = None

    def list_experiments(self) -> list[str]:
        """Return the names of all its runs, each once."""
        return list(dict.fromkeys(each.experiment for row in self.rows for each in row.measurements))


# title in tables, and whether higher is better, by metric
METRICS: dict[str, tuple[str, bool]] = {
    "mse": ("MSE", False),
    "sad": ("SAD", False),
    "gradient": ("Grad", False),
    "connectivity": ("Conn", False),
    "connectivity_gca": ("Conn", False),  # the variant that the paper's Conn fits, see docs/reproduction.md
    "imq_mse": ("IMQ MSE", True),
    "imq_mad": ("IMQ MAD", True),
    "imq_grad": ("IMQ Grad", True),
    "imq_conn": ("IMQ Conn", True),
    "max_f": ("maxF", True),
    "weighted_f": ("wF", True),
    "mae": ("M", False),
    "s_measure": ("S", True),
    "mean_e": ("mean E", True),
    "hce": ("HCE", False),
    "iou": ("IoU", True),
}
MATTING = ("mse", "sad", "gradient", "connectivity_gca")
PROTOCOL_METRICS = {
    "matting": MATTING,
    "masks": ("iou",),
    "instances": ("imq_mse", "imq_mad", "imq_grad", "imq_conn"),
    "dichotomous": ("max_f", "weighted_f", "mae", "s_measure", "mean_e", "hce"),
}
BENCHMARKS = {
    "p3m": Benchmark("P3M-500-P", "P3M-10k", "p3m-10k", "P3M-500-P", ("sad", "mse", "gradient", "connectivity")),
    "him2k": Benchmark("HIM2K-Natural", "HIM2K", "him2k", "natural", PROTOCOL_METRICS["instances"]),
    "refmatte": Benchmark("RefMatte-RW100", "RefMatte_RW_100", "refmatte-rw100", "RW100", MATTING),
    "dis_vd": Benchmark("DIS-VD", "DIS5K", "dis5k", "DIS-VD", PROTOCOL_METRICS["dichotomous"]),
    "dis_te": Benchmark("DIS-TE", "DIS5K", "dis5k", "DIS-TE", PROTOCOL_METRICS["dichotomous"]),
}


def _portraits(name: str, *figures: float) -> Row:
    """Return a row of Table 1 of another method."""
    return Row(name, {"p3m": figures})


def _objects(name: str, him2k: tuple | None, refmatte: tuple | None, *measurements: Measurement) -> Row:
    """Return a row of Table 2."""
    given = {"him2k": him2k, "refmatte": refmatte}
    return Row(name, {key: figures for key, figures in given.items() if figures}, measurements)


def _dis(name: str, *figures: float | None) -> Row:
    """Return a row of Table 3 of another method: six figures of DIS-VD, six of DIS-TE."""
    return Row(name, {"dis_vd": figures[:6], "dis_te": figures[6:]})


def _ablation(name: str, experiment: str, *figures: float, prompt: str = "text") -> Row:
    """Return a row of Tables 4 to 6."""
    return Row(name, {"refmatte": figures}, (Measurement(experiment, "refmatte", prompt),))


OURS = (0.010, 21.31, 19.38, 3.33)
TABLES: dict[str, Table] = {
    "table1": Table(
        "Table 1: training on P3M-10k with its own backgrounds and, †, with those of BG20K, tested on P3M-500-P",
        ("p3m",),
        (
            _portraits("P3M-Net", 8.73, 0.0027, 13.83, 9.14),
            _portraits("P3M-Net †", 12.33, 0.0051, 16.44, 11.67),
            _portraits("MatteFormer", 7.65, 0.0020, 12.34, 7.89),
            _portraits("MatteFormer †", 10.84, 0.0064, 15.67, 10.44),
            _portraits("MODNet", 10.33, 0.0057, 15.35, 14.35),
            _portraits("MODNet †", 23.41, 0.0154, 26.38, 18.95),
            Row("FCLM's student", {}, (Measurement("table1_p3m_real", "p3m", "none"),)),
            Row("FCLM's student †", {}, (Measurement("table1_p3m_synthetic", "p3m", "none"),)),
        ),
    ),
    "table2": Table(
        "Table 2: real photos of several objects",
        ("him2k", "refmatte"),
        (
            _objects("InstMatt", (81.34, 70.26, 74.90, 72.60), None),
            _objects("CLIPMat", None, (0.0474, 85.83, None, None)),
            _objects("MatAny", (75.68, 62.67, 46.78, 68.55), (0.0270, 52.91, 25.17, 5.13)),
            _objects("MAM", (81.67, 68.78, 51.79, 72.62), (0.0151, 29.23, 25.85, 2.83)),
            _objects("SmartMatting", (82.73, 71.44, 68.58, 74.33), (0.0120, 25.60, 22.62, 5.31)),
            _objects(
                "Ours",
                (83.48, 73.45, 75.69, 74.83),
                OURS,
                Measurement("table2_him2k", "him2k", "text"),
                Measurement("table2_refmatte", "refmatte", "text"),
            ),
            # "a photo of person." is the same text for all persons of a photo
            Row("Ours, by box", {}, (Measurement("table2_him2k", "him2k", "box"),)),
        ),
        "figure4",
    ),
    "table3": Table(
        "Table 3: DIS5K",
        ("dis_vd", "dis_te"),
        (
            _dis("IS-Net", 0.791, 0.717, 0.074, 0.813, 0.856, 1116, 0.799, 0.726, 0.070, 0.819, 0.858, 1016),
            _dis("PGNet", 0.798, 0.733, 0.067, 0.824, 0.879, None, 0.809, 0.746, 0.063, 0.830, 0.885, None),
            _dis("FP-DIS", 0.823, 0.763, 0.062, 0.843, 0.891, 1309, 0.831, 0.770, 0.057, 0.847, 0.895, 1164),
            _dis("HitNet", 0.805, 0.757, 0.061, 0.828, 0.890, 1550, 0.815, 0.767, 0.057, 0.836, 0.894, 1001),
            _dis("UDUN", 0.823, 0.763, 0.059, 0.838, 0.892, 1097, 0.831, 0.772, 0.057, 0.844, 0.892, 977),
            _dis("HQ-SAM", 0.739, 0.706, 0.120, 0.740, 0.818, 1553, 0.830, 0.804, 0.618, 0.835, 0.902, 1299),
            _dis("Pi-SAM", 0.883, 0.866, 0.035, 0.889, 0.945, 1322, 0.890, 0.873, 0.033, 0.893, 0.948, 1191),
            _dis("BiRefNet", 0.891, 0.854, 0.038, 0.898, 0.931, 989, 0.896, 0.858, 0.035, 0.901, 0.934, 916),
            _dis("FSANet", 0.825, 0.776, 0.057, 0.845, 0.894, 1094, 0.841, 0.794, 0.052, 0.857, 0.903, 973),
            _dis("MVANet", 0.904, 0.861, 0.035, 0.909, 0.937, 878, 0.916, 0.855, 0.035, 0.905, 0.938, 790),
            _dis("MaskFactory", 0.835, 0.759, 0.072, 0.866, 0.923, None, 0.839, 0.773, 0.069, 0.859, 0.907, None),
            _dis("DiffDIS", 0.918, 0.888, 0.029, 0.904, 0.948, None, 0.921, 0.892, 0.028, 0.905, 0.947, None),
            _dis("Gerpercept", 0.877, 0.859, 0.035, 0.887, 0.941, 1262, 0.875, 0.856, 0.036, 0.885, 0.939, 1176),
            Row(
                "Ours",
                {
                    "dis_vd": (0.924, 0.900, 0.025, 0.909, 0.945, 796),
                    "dis_te": (0.922, 0.895, 0.026, 0.920, 0.947, 580),
                },
                (Measurement("table3_dis5k", "dis_vd", "text"), Measurement("table3_dis5k", "dis_te", "text")),
            ),
        ),
        "figure5",
    ),
    "table4": Table(
        "Table 4: distillation",
        ("refmatte",),
        (
            _ablation("w/o KD", "table4_without_kd", 0.018, 26.34, 23.48, 4.38),
            _ablation("Vanilla KD", "table4_vanilla_kd", 0.014, 23.48, 22.84, 3.99),
            _ablation("τ+ on A", "table4_foreground_a", 0.016, 23.40, 23.02, 3.90),
            _ablation("τ+ on B", "table4_foreground_b", 0.014, 22.84, 21.92, 3.88),
            _ablation("τ+ on A and B", "table4_foreground", 0.013, 22.18, 20.29, 3.60),
            _ablation("τ+ and τ- on A and B (Ours)", "table4_full", *OURS),
        ),
    ),
    "table5": Table(
        "Table 5: losses of the domain alignment",
        ("refmatte",),
        (
            _ablation("w/o alignment", "table5_without_alignment", 0.157, 24.33, 26.87, 6.07),
            _ablation("L_adv", "table5_adversarial", 0.128, 22.79, 23.01, 4.83),
            _ablation("L_OT", "table5_transport", 0.134, 22.47, 20.72, 4.34),
            _ablation("L_adv + L_OT (Ours)", "table5_full", *OURS),
        ),
        "figure6",
    ),
    "table6": Table(
        "Table 6: kinds of prompts",
        ("refmatte",),
        (
            _ablation("point", "table6_point", 0.009, 18.46, 15.44, 3.01, prompt="point"),
            _ablation("box", "table6_box", 0.006, 16.37, 13.89, 2.48, prompt="box"),
            _ablation("text (Ours)", "table6_text", *OURS),
        ),
    ),
}


def list_all_experiments() -> list[str]:
    """Return the names of the runs of all tables, each once."""
    return list(dict.fromkeys(name for table in TABLES.values() for name in table.list_experiments()))


def choose_rows(table: str, wanted: list[str] | None) -> list[str]:
    """Return the names of the runs of a table that are wanted.

    Args:
        table: Key of TABLES.
        wanted: Names of configurations without the name of the table, such as "adversarial"; all by default.

    Raises:
        ValueError: If the table has no such run.

    Example:
        >>> from fclm_hf.reproduction.tables import choose_rows
        >>> choose_rows("table5", ["full", "adversarial"])
        ['table5_adversarial', 'table5_full']
    """
    names = {name.removeprefix(f"{table}_"): name for name in TABLES[table].list_experiments()}
    if wanted is None:
        return list(names.values())
    if unknown := [name for name in wanted if name not in names]:
        raise ValueError(f"rows must be any of {', '.join(names)} for {table}, got {', '.join(map(repr, unknown))}.")
    return [full for name, full in names.items() if name in wanted]


def is_measured(row: Row, experiments: list[str]) -> bool:
    """Return whether any of the runs belongs to a row."""
    return any(each.experiment in experiments for each in row.measurements)


def list_columns(benchmarks: dict[str, Benchmark]) -> list[tuple[str, str]]:
    """Return the benchmark and metric of each column."""
    return [(key, metric) for key, benchmark in benchmarks.items() for metric in benchmark.metrics]


def list_paper_figures(row: Row) -> dict[tuple[str, str], float]:
    """Return the figures of the paper in a row by column."""
    found: dict[tuple[str, str], Any] = {}
    for key, figures in row.figures.items():
        found |= dict(zip(((key, metric) for metric in BENCHMARKS[key].metrics), figures, strict=True))
    return {column: figure for column, figure in found.items() if figure is not None}
