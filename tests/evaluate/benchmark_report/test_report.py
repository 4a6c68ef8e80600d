"""The report in all its forms: what stands in it, that it fits, and that strangers' texts do nothing."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_question import BadRow
from mufun_jax.evaluate.benchmark_report.examples import examples
from mufun_jax.evaluate.benchmark_report.page import shortened
from mufun_jax.evaluate.benchmark_report.report import is_heard, make_report
from mufun_jax.evaluate.benchmark_report.report_folder import write_report
from mufun_jax.evaluate.benchmark_report.table import report_tables
from mufun_jax.evaluate.benchmark_scores.marking import WAYS
from mufun_jax.evaluate.benchmarks.published import published, published_average
from mufun_jax.evaluate.result import CONDITIONS
from tests.evaluate.results import Model, failed, result_of, results

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EVIL = "</script><script>document.title='owned'</script><img src=//evil.example/x onerror=alert(1)> \u202e [x](y) `a`"


def mucue(model: Model = "guess", questions=12, bad=(), **more):
    """All of MuCUE's sets, a few questions each, under every condition."""
    found = results(model, published().groups, questions=questions, songs=4, conditions=CONDITIONS, **more)
    return make_report(found, list(bad), benchmark="mucue", groups=published().groups, model="runs/mine/checkpoint")


def mine(found, bad=(), model="mine", **more):
    return make_report(found, list(bad), benchmark="mine", groups={"disco": "genre"}, model=model, **more)


def printed(report, width=100):
    console = Console(width=width, record=True, color_system=None)
    console.print(report_tables(report))
    return console.export_text()


def written(report, folder):
    """The JSON, the Markdown and the page without Plotly's own code."""
    files = write_report(folder, report, now=1_700_000_000.0)
    assert [path.name for path in files] == ["report.json", "report.md", "report.html"]
    page = files[2].read_text()
    library = max(re.findall(r"<script>.*?</script>", page, flags=re.DOTALL), key=len)
    assert len(library) > 10**6
    return json.loads(files[0].read_text()), files[1].read_text(), page.replace(library, "")


def figures_of(page):
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, flags=re.DOTALL)
    assert found and "<" not in found[1]
    return json.loads(found[1])["figures"]


@pytest.fixture(scope="module")
def report():
    return mucue(bad=[BadRow("x", "mtg_mood", "three options")])


@pytest.fixture(scope="module")
def files(report, tmp_path_factory):
    return written(report, tmp_path_factory.mktemp("report"))


def test_the_json_holds_all(files, report):
    data = files[0]
    assert (data["benchmark"], data["model"], data["made"]) == (
        "mucue",
        "runs/mine/checkpoint",
        "2023-11-14 22:13:20 UTC",
    )
    assert len(data["scores"]["sets"]) == 27
    first = data["scores"]["sets"][0]
    assert set(first["ways"]) == set(WAYS)
    assert set(first["baselines"]) == {"text_only", "other_song", "silence"}
    assert set(first["ways"]["generated"]) == {
        "n",
        "correct",
        "accuracy",
        "wilson",
        "songs",
        "standard_error",
        "clustered",
    }
    assert set(first["always"]) <= set("ABCD")
    best = {each["model"]: each["average"] for each in data["published"]}
    assert best == {model: pytest.approx(published_average(model)) for model in published().models}
    assert data["model_digests"] == ["m" * 64]


def test_the_markdown_has_every_set_and_model(files):
    text = files[1]
    for each in published().sets:
        assert f"| {each.name.replace('_', chr(92) + '_')} " in text
    for model in published().models:
        assert model in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == 2 * (2 + 27 + 1) + sum(len(group) > 1 for group in group_sizes()) + 1
    assert "**mean of 26 sets**" in text and "65.7" in text
    assert "likeliest text per token" in text and "three options" in text


def group_sizes():
    groups = {}
    for each in published().averaged:
        groups.setdefault(each.group, []).append(each.name)
    return groups.values()


def test_every_row_of_a_markdown_table_has_as_many_cells(files):
    blocks = [block for block in files[1].split("\n\n") if block.startswith("|")]
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_the_page_has_all_parts(files):
    page = html.unescape(files[2])
    assert set(figures_of(files[2])) == {"radar", "ways", "sets"}
    for heading in (
        "Groups",
        "Ways and baselines",
        "Sets",
        "Accuracy",
        "By every way",
        "Failure signatures",
        "Examples",
    ):
        assert f"<h2>{heading}" in page
    for word in (*published().groups, *published().models, "published convention", "mean of 26 sets", "not averaged"):
        assert word in page
    assert "three options" in page and '<article class="example right">' in page


def test_the_figures_show_what_was_scored(files, report):
    figures = figures_of(files[2])
    radar = {trace["name"]: trace["r"] for trace in figures["radar"]["data"] if trace["name"]}
    assert set(radar) == {"runs/mine/checkpoint", "no audio", *published().models}
    ours = [100 * group.average["generated"].accuracy for group in report.scores.groups]
    assert radar["runs/mine/checkpoint"] == pytest.approx([*ours, ours[0]]), "a closed ring"
    bars = figures["sets"]["data"][0]
    scored = {each.name: each.ways["generated"] for each in report.scores.sets}
    for label, value, above, below in zip(
        bars["y"], bars["x"], bars["error_x"]["array"], bars["error_x"]["arrayminus"], strict=True
    ):
        if label.startswith("<b>"):
            assert value is None
        else:
            accuracy = scored[label]
            assert value == pytest.approx(100 * accuracy.accuracy)
            assert value + above == pytest.approx(100 * accuracy.clustered[1])
            assert value - below == pytest.approx(100 * accuracy.clustered[0])
    points = {trace["name"]: trace for trace in figures["sets"]["data"][1:]}
    assert len(points["MuFun-Base"]["x"]) == 26
    assert dict(zip(points["MuFun-Base"]["y"], points["MuFun-Base"]["x"], strict=True))["ly_m163"] == pytest.approx(
        90.8
    )


@pytest.mark.parametrize("rotations", [1, 2])
def test_the_table_fits_100_columns(rotations, report):
    text = printed(mucue("oracle", rotations=rotations))
    lines = text.splitlines()
    table = text[: text.index("acoustic blindness")]
    assert "…" not in table, "nothing is cut"
    assert max(map(len, lines)) <= 100
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 97, "room for a number of five digits"
    row = next(line for line in lines if line.strip().startswith("ballroom_genres"))
    assert row.split() == ["ballroom_genres", "12", "100.0", *row.split()[3:-1], "52.4"]
    assert "mean of 26" in text and "65.7" in text
    assert "acoustic blindness: not seen" in text and "warning: 27 sets have another number" in text


def test_another_benchmark_has_no_published_columns(tmp_path):
    data, text, page = written(mine(results("guess", {"disco": "genre"})), tmp_path)
    assert (data["published"], data["published_source"]) == ([], "")
    shown = printed(mine(results("guess", {"disco": "genre"})))
    for told in (text, page, shown):
        assert "Gemini" not in told and "MuFun-" not in told
    assert set(figures_of(page)) == {"ways", "sets"}, "one group is no radar"


@pytest.mark.parametrize(
    ("found", "bad"),
    [
        ([], []),
        ([], [BadRow("x", "disco", "no audio")]),
        ([result_of("mute")], []),
        ([failed(result_of("oracle"))], []),
        (results("guess", {"disco": "genre"}, conditions=["text_only"]), []),
    ],
    ids=["empty", "only a bad row", "mute", "only an error", "without the song"],
)
def test_every_odd_run_has_a_report(found, bad, tmp_path):
    for benchmark in ("mine", "mucue"):
        report = make_report(found, bad, benchmark=benchmark, groups={"disco": "genre"}, model="m")
        data, text, page = written(report, tmp_path / benchmark)
        assert data["scores"]["overall"]["n"] == len([r for r in found if r.condition == "audio"]) + len(bad)
        assert text and "</html>" in page and printed(report)


def test_heard_needs_every_baseline_below_the_whole_interval():
    def heard(song, silent, majority=()):
        found = results("guess", {"disco": "genre"}, questions=200, songs=200, skill=song)
        found += results("guess", {"disco": "genre"}, questions=200, songs=200, skill=0.0, conditions=["text_only"])
        more = [
            replace(result, condition="silence")
            for result in results("oracle" if silent else "mute", {"disco": "genre"}, questions=200, songs=200)
        ]
        return is_heard(mine(found + more).scores.sets[0])

    assert heard(0.8, silent=False) is True
    assert heard(0.0, silent=False) is False
    assert heard(0.8, silent=True) is False
    assert is_heard(mine(results("oracle", {"disco": "genre"})).scores.sets[0]) is None


def test_what_one_letter_scores_is_no_hearing():
    mostly_a = [result_of("oracle", number=i, song=str(i), gold=0 if i % 10 else 1) for i in range(200)]
    found = [replace(each, letter=0) if i % 4 else replace(each, letter=2) for i, each in enumerate(mostly_a)]
    silent = [replace(each, letter=3, condition="text_only") for each in mostly_a]
    score = mine(found + silent).scores.sets[0]
    assert score.ways["generated"].clustered[0] > score.baselines["text_only"]["generated"].accuracy
    assert score.majority == 0.9
    assert is_heard(score) is False


def test_warnings_say_what_a_reader_must_know():
    found = results("oracle", {"disco": "genre"}, questions=30, rotations=2)
    found[0] = failed(found[0], "a.wav: too long")
    found[4] = replace(found[4], letter=None, reply="Hm.", seconds_dropped=10.0)
    found[6] = replace(found[6], model_digest="other")
    lines = mine(found[:-1], [BadRow("x", "disco", "two options")] * 2, warnings=["songs shared"]).warnings
    assert lines == (
        "songs shared",
        "2 rows could not be made a question and are wrong: two options (2)",
        "1 question ended with an error, which is wrong: a.wav: too long (1)",
        "no letter could be read in 1 of 58 replies (1.7 %), which are wrong: disco 1",
        "1 question was asked in fewer than 2 orders of the options: the run is not finished",
        "the audio of 1 question was longer than the model hears: on average 10 s of each were not heard",
        "the results are of 2 models; run it anew into an empty file to have one",
    )
    assert mine(results("oracle", {"disco": "genre"})).warnings == ()


def test_a_part_of_mucue_says_what_is_missing():
    report = make_report(
        results("oracle", {"gs_key_30s": "key"}), [], benchmark="mucue", groups=published().groups, model="m"
    )
    missing, counts = report.warnings
    assert missing.startswith("the mean is over 1 of MuCUE's 26 sets; not asked: gtzan_key, nsyn_pitch,")
    assert counts == "1 set has another number of questions than published: gs_key_30s 24 of 500"
    assert report.published[0].average == pytest.approx(0.504), "compared over the same sets"


def test_examples_are_of_every_kind_and_of_several_sets():
    found = results("guess", {"a": "x", "b": "x", "c": "x"}, questions=30, rotations=2, conditions=CONDITIONS)
    found = [failed(result) if result.id == "a-3" else result for result in found]
    found = [replace(result, letter=None) if result.id in ("b-1", "b-2") else result for result in found]
    shown = examples(found, each=4)
    kinds = [example.kind for example in shown]
    assert kinds == ["right"] * 4 + ["wrong"] * 4 + ["unreadable"] * 2 + ["error"]
    assert {example.set for example in shown[:4]} == {"a", "b", "c"}
    right = shown[0]
    assert right.read == right.expected and right.reply.startswith(f"{right.expected}. ")
    assert shown[-1].reply == "damaged.wav: cannot be decoded"
    assert examples(found) == shown


def hostile():
    found = results("guess", {"disco": "genre"}, questions=20, conditions=["audio", "text_only"])
    found = [
        replace(result, id=f"{EVIL}{result.id}", set=name, group=name, prompt=EVIL, reply=EVIL, song=EVIL + result.song)
        for i, result in enumerate(found)
        for name in [f"{'<i>ab' if i % 3 else ''}{i % 3}{EVIL}"]
    ]
    found[0] = failed(found[0], EVIL)
    return make_report(
        found, [BadRow(EVIL, EVIL, EVIL)], benchmark=EVIL, groups={EVIL: EVIL}, model=EVIL, warnings=[EVIL]
    )


def test_strangers_texts_do_nothing(tmp_path):
    _, text, page = written(hostile(), tmp_path)
    assert page.count("<script") == 2, "the data and our own; Plotly was taken out"
    assert "<img" not in page and "\u202e" not in page
    assert html.unescape(page).count("<script>document.title='owned'") > 20
    figures = figures_of(page)
    drawn = json.dumps(figures).replace("<b>", "").replace("</b>", "")
    assert "radar" in figures and "&lt;i&gt;ab" in drawn and not re.search(r"<[a-z/]", drawn)
    outside_code = re.sub(r"(`+) .*? \1(?!`)", "", text)
    assert "<" not in outside_code.replace(r"\<", "")
    assert not re.search(r"(?<!\\)\[x\]", outside_code)
    shown = printed(hostile())
    assert "\u202e" not in shown and "<img" in shown


def test_nothing_refers_to_the_network(files):
    page = files[2]
    assert "//" not in re.sub(r"^\s*// .*$|; // .*$|, // .*$|\] // .*$|^.*\{\}; // .*$|, // .*", "", page, flags=re.M)
    for tag in ("<link", "src=", "@import", "url("):
        assert tag not in page.replace('<link rel="icon" href="data:,">', "")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and "default-src 'none'" in html.unescape(policy[1])


@pytest.mark.parametrize("size", ["1300,900", "500,900"])
def test_a_browser_draws_every_figure(size, tmp_path):
    written(hostile() if size.startswith("5") else mucue(), tmp_path)
    page = tmp_path / "report.html"
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    assert browser, f"no browser: one of {', '.join(BROWSERS)} must be on the PATH; `make browser` installs one"
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=30000", f"--window-size={size}", "--dump-dom", page.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert run.returncode == 0, run.stderr[-2000:]
    root = re.search(r"<html[^>]*>", run.stdout)
    count = len(re.findall(r'<div class="figure', page.read_text()))
    assert root and "data-error" not in root[0] and f'data-drawn="{count}"' in root[0]
    drawn = re.sub(r"<script.*?</script>", "", run.stdout, flags=re.DOTALL)
    assert drawn.count('class="main-svg"') >= count
    assert "<img" not in drawn and "<title>owned" not in drawn


def test_a_long_text_says_what_is_left_out():
    assert shortened("x" * 1200) == "x" * 1200
    assert shortened("x" * 1300).endswith(" … (100 more characters)")


def test_a_missing_library_is_named_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr("mufun_jax.report.written.find_spec", lambda name: None if name == "plotly" else object())
    with pytest.raises(UserError, match=r"the report needs Plotly, which is not installed: pip install"):
        write_report(tmp_path / "out", mine([]), now=0.0)
    assert not Path(tmp_path / "out").exists()
