"""Chapter 2: equations and figures on real frames, references, glossary, and the table of what is
made again where."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

from lib.demo import list_specs, make_benchmark
from lib.engines import zoo
from lib.files import ROOT
from lib.report import theory
from lib.siamrpn.anchors import STRIDE
from lib.siamrpn.checkpoint import load_network
from lib.siamrpn.crop import SEARCH_SIZE, as_input
from lib.siamrpn.network import NetworkConfig
from lib.siamrpn.tracker import SiamRPNTracker
from lib.vot.dataset import TAGS, Dataset, axis_aligned_box, load_dataset

from .helpers import Page, assert_readable, cells, executed, texts

PAGES = ("02_1_cnn", "02_2_tracking", "02_3_optimizing")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The first fourteen sequences of the demo benchmark, all kinds among them."""
    names = [spec.name for spec in list_specs()[:14]]
    return load_dataset(make_benchmark(tmp_path_factory.mktemp("demo") / "benchmark", names))


def page_fixture(name: str) -> Any:
    @pytest.fixture(scope="module")
    def page(data: Dataset, one_thread: None) -> Page:
        return executed(name, dataset=str(data.path))

    return page


cnn, tracking, optimizing = map(page_fixture, PAGES)
introduction = page_fixture("01_introduction")


@pytest.fixture
def random() -> np.random.RandomState:
    return np.random.RandomState(3)


# -- Equations -------------------------------------------------------------------------------------


def slide(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Sums of products at every place, one at a time."""
    (height, width), (rows, columns) = x.shape, kernel.shape
    return np.array(
        [
            [
                sum(x[i + k, j + m] * kernel[k, m] for k in range(rows) for m in range(columns))
                for j in range(width - columns + 1)
            ]
            for i in range(height - rows + 1)
        ]
    )


def test_the_convolution_of_equation_2_1_does_not_turn_the_kernel_round(
    cnn: Page, random: np.random.RandomState
) -> None:
    x, kernel = random.normal(size=(3, 3)), random.normal(size=(2, 2))
    y = cnn.convolution(x, kernel)
    assert y == pytest.approx(slide(x, kernel))
    assert y != pytest.approx(slide(x, kernel[::-1, ::-1]))


def test_residual_blocks_compute_what_layers_do(cnn: Page, random: np.random.RandomState) -> None:
    x, first, second, projection = (
        random.normal(size=size) for size in (4, (5, 4), (6, 5), (6, 4))
    )
    hidden = np.array([max(0.0, sum(first[i, j] * x[j] for j in range(4))) for i in range(5)])
    expected = second @ hidden + projection @ x
    assert cnn.residual(x, first, second, projection) == pytest.approx(expected)
    nothing = cnn.residual(x, first, np.zeros((4, 5)))
    assert nothing == pytest.approx(x), "a block that adds nothing hands its input on"


def test_the_correlation_of_equation_2_5_sums_over_channels_and_adds_b(
    tracking: Page, random: np.random.RandomState
) -> None:
    z, x = random.normal(size=(3, 2, 4)), random.normal(size=(3, 6, 7))
    expected = sum(slide(x[c], z[c]) for c in range(3)) + 1.5
    assert tracking.correlation(z, x, 1.5) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["cls", "loc"])
def test_equation_2_6_is_what_the_networks_branch_computes(tracking: Page, name: str) -> None:
    expected = tracking.theirs[name].numpy()
    assert len(expected) == {"cls": 2, "loc": 4}[name] * tracking.network.config.anchors
    close = 1e-5 * float(np.abs(expected).max())
    assert tracking.ours[name] == pytest.approx(expected, abs=close)


def test_losses_normalisation_and_divergence_by_hand(cnn: Page, optimizing: Page) -> None:
    assert cnn.mean_squared_error(np.array([1.0, 4.0]), np.array([0.0, 2.0])) == 2.5
    entropy = cnn.binary_cross_entropy(np.array([1.0, 0.0]), np.array([0.5, 0.75]))
    assert entropy == pytest.approx(np.log(2) * 1.5)
    x = np.array([[[[1.0, 3.0]]], [[[5.0, 7.0]]]])
    normal = optimizing.batch_normalised(x, np.array([2.0]), np.array([1.0]), 0.0)
    assert normal.ravel() == pytest.approx(1 + 2 * np.array([-3, -1, 1, 3]) / np.sqrt(5))
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert optimizing.divergence(p, q) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert optimizing.divergence(p, p) == 0


def test_a_disagreement_stops_the_page() -> None:
    one = np.array([1.0, 2.0])
    assert "2 values" in theory.agreement("Equation", one, torch.tensor([1.0, 2.0]))
    for other in (np.array([1.0, 2.1]), np.array([1.0, np.nan]), np.array([[1.0, 2.0]])):
        with pytest.raises(ArithmeticError, match="Equation"):
            theory.agreement("Equation", one, other)


# -- A real pair of frames -------------------------------------------------------------------------


def test_a_pair_is_cut_as_the_tracker_cuts_it(data: Dataset) -> None:
    class Network:
        def template(self, exemplar: np.ndarray) -> np.ndarray:
            return exemplar

    pair = theory.choose_pair(data)
    tracker = SiamRPNTracker(Network())  # type: ignore[arg-type]
    box = axis_aligned_box(pair.sequence.regions[0])
    tracker.init(pair.sequence.frame(0), box)
    assert (tracker.kernels == as_input(pair.exemplar)).all()
    crop, scale = tracker.search_crop(pair.sequence.frame(pair.second))
    assert (crop == pair.search).all()
    assert theory.AWAY[0] <= np.linalg.norm(pair.centre) / STRIDE <= theory.AWAY[1]
    width = axis_aligned_box(pair.sequence.regions[pair.second])[2]
    assert pair.box[2] - pair.box[0] == pytest.approx((width - 1) * scale)


def test_the_real_network_finds_the_target_with_equations_2_5_and_2_6(tracking: Page) -> None:
    """A claim about this pair and these weights: both responses have their peak within a position
    of the annotation."""
    for response in (tracking.response, tracking.score.max(0)):
        assert np.abs(tracking.displacement(response) - tracking.pair.centre).max() <= STRIDE
    assert tracking.overlap[tracking.best] > 0.7


def test_displacement_counts_from_the_centre(tracking: Page) -> None:
    response = np.zeros((5, 5))
    response[1, 4] = 1
    assert tracking.displacement(response).tolist() == [2 * STRIDE, -STRIDE]


def test_anchors_are_labelled_by_their_overlap(cnn: Page) -> None:
    assert cnn.overlap.shape == (cnn.network.config.anchors, 25, 25)
    assert cnn.overlap[cnn.best] == cnn.overlap.max() and cnn.positive[cnn.best]
    rest = cnn.positive.copy()
    rest[cnn.best] = False
    assert (cnn.overlap[rest] > 0.7).all() and (cnn.overlap[~cnn.positive] <= 0.7).all()
    middle = cnn.boxes[:, 12, 12].reshape(-1, 2, 2).mean(1)
    assert middle == pytest.approx(SEARCH_SIZE // 2), "the middle looks at the middle of the crop"


def test_challenges_are_frames_with_the_tag(data: Dataset, tracking: Page) -> None:
    found = tracking.find_challenges(data)
    for one, tag in zip(found, tracking.CHALLENGES):
        assert one.sequence.tags[tag][one.after]
    assert len(found) == 3
    hidden, turned, _ = found
    covered = hidden.sequence.tags["occlusion"]
    [before] = [
        index
        for index in range(hidden.after)
        if covered[index + 1 : hidden.after + 1].all() and not covered[index]
    ]
    pixels = [tracking.target_pixels(hidden.sequence, index) for index in (before, hidden.after)]
    alike = np.corrcoef(*pixels)[0, 1]
    assert f"by {alike:.2f} with" in hidden.measured and alike < 0.5, "it is covered"
    assert "turned by" in turned.measured and "times the area" in turned.measured
    without = Dataset(
        "x",
        data.path,
        tuple(
            replace(sequence, tags={tag: np.zeros(len(sequence), bool) for tag in TAGS})
            for sequence in data
        ),
    )
    assert tracking.find_challenges(without) == [], "what no frame shows is left out"


def test_the_similar_place_does_not_touch_the_target(tracking: Page) -> None:
    rival = tracking.rival
    x, y, width, height = rival.box
    left, top, *_ = np.round(axis_aligned_box(rival.sequence.regions[0]))
    assert abs(x - left) >= width or abs(y - top) >= height
    assert 0.3 < rival.score <= 1
    assert rival.score < np.nanmax(rival.scores), "nothing is as like the target as the target"


def test_a_channel_is_put_back_after_it_was_left_out(optimizing: Page) -> None:
    before = load_network(zoo.weights_path("demo", ROOT)).state_dict()
    assert len(optimizing.scores) == 16 and min(optimizing.scores) > 0
    now = optimizing.network.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in now.items())


# -- Depth -----------------------------------------------------------------------------------------


def test_training_and_test_patches_share_no_pixel(data: Dataset, cnn: Page) -> None:
    train, test = (cnn.frame_patches(data, right=right, each=20) for right in (False, True))
    assert train.x.shape == (200, 64) and train.y.bincount().tolist() == [20] * 10
    assert train.names == test.names
    assert float(train.x.mean(1).abs().max()) < 1e-5
    assert not {tuple(row) for row in train.x.tolist()} & {tuple(row) for row in test.x.tolist()}


def test_learning_is_repeatable_and_learns(data: Dataset, cnn: Page) -> None:
    train, test = (cnn.frame_patches(data, right=right, each=50) for right in (False, True))
    torch.manual_seed(99)
    one = cnn.learn(train, test, 4, True, 1, steps=60)
    torch.rand(5)
    two = cnn.learn(train, test, 4, True, 1, steps=60)
    assert one.train == two.train and one.steps == [0, 60]
    assert one.train[-1] < one.train[0] - 0.2
    layers = [each for each in cnn.Deep(8, 3, 20, False).modules() if isinstance(each, nn.Linear)]
    assert len(layers) == 20, "depth counts the layers with weights, as He et al. do"


# -- Figures ---------------------------------------------------------------------------------------


def test_every_figure_draws_with_a_note(cnn: Page, tracking: Page, optimizing: Page) -> None:
    pages = (cnn, tracking, optimizing)
    figures = [figure for page in pages for figure in page.figures().values()]
    assert len(figures) == 16
    for figure in figures:
        FigureCanvasAgg(figure).draw()
        assert figure._supxlabel.get_text()


def test_figures_print_what_they_compute(cnn: Page, optimizing: Page) -> None:
    x, w = cnn.values[0], cnn.hidden[0]
    assert f"{x @ w:.2f}" in texts(cnn.figures()["fig-2-2"])
    assert f"{1 / (1 + np.exp(-(x @ w))):.2f}" in texts(cnn.figures()["fig-2-2"])
    square, (_, largest, average) = cnn.feature_map[:2, :2], cnn.figures()["fig-2-6"].axes
    assert largest.texts[0].get_text() == f"{square.max():g}"
    assert average.texts[0].get_text() == f"{square.mean():g}"
    stage = cnn.network.config.stages[0]
    inside, outside = stage.blocks[0][0], stage.channels
    assert f"{outside} → {inside}" in texts(cnn.figures()["fig-2-9"])
    assert f"{inside}×63×63" in texts(cnn.figures()["fig-2-9"])
    numbers = texts(optimizing.figures()["fig-2-14"]).split("\n")
    assert numbers.count(str(outside)) == 4, "three convolutions give the sum's, and one takes them"


def test_the_full_networks_counts_are_the_thesiss(cnn: Page) -> None:
    """Figure 2.14 is iterated 256 times for its block (section 2.3.1), and 3,072 and 27 are section
    2.1.1's."""
    assert NetworkConfig.resnet50().stages[0].channels == 256
    assert (cnn.everything, cnn.shared) == (3072, 27)


# -- Pages -----------------------------------------------------------------------------------------


def source(page: str) -> str:
    return "\n".join("".join(cell["source"]) for cell in cells(page))


def captions(page: str) -> str:
    """Captions of figures, and of tables as the code has them."""
    shown = [cell["metadata"].get("mystnb", {}) for cell in cells(page)]
    figures = [metadata["figure"]["caption"] for metadata in shown if "figure" in metadata]
    return "\n".join([*figures, *re.findall(r'"(Table \d.\d[^"]*)', source(page))])


def shows(page: str, item: str) -> bool:
    return re.search(rf"{re.escape(item)}(?!\d)", captions(page), re.IGNORECASE) is not None


def test_every_equation_stands_as_latex_and_is_checked() -> None:
    text = "\n".join(map(source, PAGES))
    for number in range(1, 9):
        assert f"\\tag{{2.{number}}}" in text
    assert set(re.findall(r'agreement\(\s*f?"(Equation 2\.\d|Mean squared|Binary)', text)) == {
        "Equation 2.1",
        "Mean squared",
        "Binary",
        *(f"Equation 2.{number}" for number in range(3, 9)),
    }


def listing() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return re.findall(r"'file': '([\w/]+)'", str(toc))


WITH_PAGE = ("made", "after training")


def made() -> pd.DataFrame:
    """Where each figure and table is made again."""
    path = ROOT / "data" / "reproduction.csv"
    return pd.read_csv(path, comment="#", dtype=str).fillna("")


def test_every_figure_and_table_of_the_thesis_has_a_row(thesis_text: str) -> None:
    tables, figures = (
        thesis_text.split("\nList of Tables\n")[1]
        .split("\nAcronyms\n")[0]
        .split("\nList of Figures\n")
    )
    # Some of chapter 4 are garbled in the lists; captions have them
    listed = [
        f"{kind} {number}"
        for kind, text in (("figure", figures), ("table", tables))
        for number in re.findall(r"^([2-4]\.\d+)\t", text, re.MULTILINE)
    ]
    captioned = {
        f"{kind.lower()} {number}"
        for kind, number in re.findall(r"^(Figure|Table) (\d\.\d+): ", thesis_text, re.MULTILINE)
    }
    rows = set(made()["item"])
    assert {*listed, *captioned} == rows and len(listed) > 30


def test_every_row_is_made_where_it_says() -> None:
    rows, toc = made(), listing()
    assert rows["item"].is_unique and set(rows["state"]) <= {*WITH_PAGE, "not yet", "exception"}
    columns = ["item", "state", "page", "data", "scale"]
    for item, state, page, data, scale in rows[columns].to_numpy():
        if state in WITH_PAGE:
            assert page in toc and shows(Path(page).name, item), f"{page} has no caption of {item}"
            assert data and scale in ("none", "demo", "thesis", "reported"), item
            continue
        caption = re.compile(rf"^(?:As )?{item}(?!\d)", re.MULTILINE | re.IGNORECASE)
        notebooks = [Path(page).name for page in toc if page.startswith("notebooks/")]
        assert not page, item
        assert not [name for name in notebooks if caption.search(captions(name))], item


# -- Introduction ----------------------------------------------------------------------------------


def test_the_introductions_loop_is_the_trackers_and_its_numbers_the_thesiss(
    introduction: Page,
) -> None:
    for figure in introduction.figures().values():
        assert_readable(figure, "")
    given, sequence = introduction.tracker, introduction.sequence
    tracker = SiamRPNTracker(given.network, given.config)
    tracker.init(sequence.frame(0), axis_aligned_box(sequence.regions[0]))
    for number in range(1, introduction.last + 1):
        box = tracker.track(sequence.frame(number)).box
    assert introduction.box == pytest.approx(box)
    [table] = introduction.tables()
    assert [row[1:4] for row in table.rows] == [
        ["0.413", "11", "21.4"],
        ["0.392", "13", "20.9"],
        ["0.389", "50", "13.0"],
        ["0.347", "66", "3.6"],
        ["0.159", "94", "1.2"],
    ]


def test_window_and_penalty_are_those_of_the_tracker(tracking: Page) -> None:
    step = tracking.clearest
    values = [tracking.distance(step, each) for each in (step.score, step.ranking)]
    assert values[0] > values[1], "they help there"
    assert (step.penalised <= step.score + 1e-6).all()


# -- References and glossary -----------------------------------------------------------------------


def entries() -> dict[str, dict[str, str]]:
    text = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    found = {}
    for key, body in re.findall(r"^@\w+\{([\w]+),\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        assert key not in found, f"{key} twice"
        found[key] = dict(re.findall(r"^\s*(\w+)\s*= *\{?(.*?)\}?,$", body, re.MULTILINE))
    return found


def plain(text: str) -> str:
    """Lower-case letters and digits of a title, without TeX or accents."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\\\W|\\[a-z](?=\{)", "", text).lower())


def test_what_pages_cite_is_in_the_bibliography() -> None:
    texts = [
        path.read_text(encoding="utf-8")
        for path in [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "book").glob("*.md")]
    ]
    cited = {
        key.strip()
        for text in texts
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    assert cited <= set(entries()) and len(cited) > 50
    assert sum("{bibliography}" in text for text in texts) == 1, (
        "a second bibliography would warn of double entries"
    )


def test_references_are_the_thesiss_under_its_numbers(thesis_text: str) -> None:
    bibliography = thesis_text.split("\nBibliography\n")[1]
    printed = re.split(r"^- (?:\[\d+\] )?", bibliography, flags=re.MULTILINE)[1:]
    numbered = {key: int(entry["thesis"]) for key, entry in entries().items() if "thesis" in entry}
    assert len(set(numbered.values())) == len(numbered) > 55
    for key, number in numbered.items():
        entry = entries()[key]
        if number == 7:  # the thesis prints "d" as its title
            assert "bertinetto" in plain(printed[number - 1])
            continue
        assert plain(entry["title"]) in plain(printed[number - 1]), key
        # Of the preprint or of the paper
        years = {int(year) for year in re.findall(r"\b(?:19|20)\d\d\b", printed[number - 1])}
        assert not years or years & {int(entry["year"]), int(entry["year"]) - 1}, key


def glossary() -> dict[str, str]:
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w[\w, ]*)\n  (.+)$", text, re.MULTILINE))


def test_the_glossary_has_every_acronym_of_the_thesis(thesis_text: str) -> None:
    listed = thesis_text.split("\nAcronyms\n")[1].split("Chapter 1")[0]
    found = [
        part.split(maxsplit=1)
        for part in listed.replace("*", "").split(".")
        if len(part.split()) > 1
    ]
    assert len(found) == 19
    for acronym, name in found:
        assert glossary()[acronym].startswith(f"{' '.join(name.split())}: "), acronym


def test_the_glossary_names_the_thesiss_sections(thesis_text: str) -> None:
    body = thesis_text.split("Chapter 1\n\nIntroduction")[1].split("\nBibliography\n")[0]
    parts = {"1": ""}
    for part in re.split(r"\n(?=\d\.\d(?:\.\d)? \**[A-Z])", body):
        number = re.match(r"\d\.\d(?:\.\d)?", part)
        parts[number[0] if number else "1"] = parts.get(number[0] if number else "1", "") + part
    for term, text in glossary().items():
        said = re.search(r"In the thesis in ([\d., ]+);", text)
        named = re.findall(r"\d(?:\.\d)*", said[1]) if said else []
        words = re.compile(
            "|".join(rf"(?<![A-Za-z]){word}(?![a-rt-z])" for word in term.split(", "))
        )
        used = [number for number, part in parts.items() if words.search(part)]
        for number in named:
            assert any(within(other, number) for other in used), f"{term}: not in {number}"
        assert [
            other for other in used if not any(within(other, number) for number in named)
        ] == [], term


def within(section: str, outer: str) -> bool:
    return section == outer or section.startswith(f"{outer}.")


def test_the_glossarys_pages_use_the_term() -> None:
    for term, text in glossary().items():
        pages = re.findall(r"<notebooks/(\w+)>", text)
        assert pages or "not in this book" in text, term
        for page in pages:
            assert f"notebooks/{page}" in listing(), page
            words = [*term.split(", "), *([text.split(": ")[0]] if ": " in text else [])]
            used = spelled_alike(source(page) + captions(page))
            assert any(re.search(rf"\b{re.escape(spelled_alike(word))}", used) for word in words), (
                f"{term} in {page}"
            )


def spelled_alike(text: str) -> str:
    return text.lower().replace("-", " ").replace("isation", "ization")


def test_the_index_of_a_hand_made_dataset_is_refused_without_a_pair(tmp_path: Path) -> None:
    """A sequence of one frame has no second frame to show."""
    import cv2

    folder = tmp_path / "one"
    (folder / "color").mkdir(parents=True)
    cv2.imwrite(str(folder / "color" / "00000001.png"), np.zeros((64, 64, 3), np.uint8))
    (folder / "groundtruth.txt").write_text("10,10,20,20\n")
    with pytest.raises(theory.InputError, match="no two frames"):
        theory.choose_pair(load_dataset(folder))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_on_real_frames(
    shared: Path, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every cell, on two VOT2018 sequences: all figures are drawn, all equations agree, and nothing
    is printed."""
    sequences = shared / "sequences" / "VOT2018"
    if not sequences.is_dir():
        pytest.skip(
            f"the two real VOT2018 sequences are not on this machine: {sequences} does not exist"
        )
    shown = executed(page, dataset=str(sequences)).cells_shown
    assert capsys.readouterr() == ("", "")
    assert all(isinstance(value, Figure) for cell, value in shown if "mystnb" in cell["metadata"])
    assert sum("agree in" in str(value) for _, value in shown) == len(
        re.findall(r"^agreement\(", source(page), re.MULTILINE)
    )
