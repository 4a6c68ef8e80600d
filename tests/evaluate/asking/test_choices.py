import pytest

from mufun_jax.evaluate.asking.choices import lettered, parse_choices, prompt_of
from mufun_jax.evaluate.benchmark_question import BenchmarkQuestion, OptionLayout, Song

GENRES = ("metal", "disco", "classical", "country")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("A. metal \nB. disco \nC. classical \nD. country", GENRES),
        ("A. metal\nB. disco\nC. classical\nD. country\n", GENRES),
        ("A. metal B. disco C. classical D. country", GENRES),
        ("A) metal, B) disco, C) classical, D) country", ("metal,", "disco,", "classical,", "country")),
        ("(A) metal (B) disco (C) classical (D) country", GENRES),
        ("A: metal\r\nB: disco\r\nC: classical\r\nD: country", GENRES),
        ("a. metal\nb. disco\nc. classical\nd. country", GENRES),
        ("a) metal b) disco c) classical d) country", GENRES),
        ("\n  A. metal\n  B. disco\n\n  C. classical\n  D. country", GENRES),
        ("Ａ．metal\nＢ．disco\nＣ．classical\nＤ．country", GENRES),
        ("A、古典\nB、爵士\nC、摇滚\nD、民谣", ("古典", "爵士", "摇滚", "民谣")),
        ("A.metal\nB.disco\nC.classical\nD.country", GENRES),
        # Letters inside of options do not split them.
        ("A. J. S. Bach\nB. C. P. E. Bach\nC. A. Vivaldi\nD. G. F. Handel",
         ("J. S. Bach", "C. P. E. Bach", "A. Vivaldi", "G. F. Handel")),
        ("A. vitamin B. twice\nB. b\nC. D. Shostakovich\nD. d", ("vitamin B. twice", "b", "D. Shostakovich", "d")),
        ("A. Plan B) first B. two C. three D. four", ("Plan B) first", "two", "three", "four")),
        ("A. C major\nB. C# minor\nC. D major\nD. A minor", ("C major", "C# minor", "D major", "A minor")),
        ("A. A\nB. B\nC. C\nD. D", ("A", "B", "C", "D")),
        ("A. 0:00-0:31\nB. 0:31-1:02\nC. 1:02-1:10\nD. 1:10-1:40",
         ("0:00-0:31", "0:31-1:02", "1:02-1:10", "1:10-1:40")),
        ("A. one line\nand one more\nB. two\nC. three\nD. four", ("one line\nand one more", "two", "three", "four")),
        ("A. same\nB. same\nC. other\nD. another", ("same", "same", "other", "another")),
        ("A. VITAMIN.B. C\nB. x\nC. y\nD. z", ("VITAMIN.B. C", "x", "y", "z")),
    ],
)  # fmt: skip
def test_four_options(text, options):
    assert parse_choices(text).options == options


@pytest.mark.parametrize(
    "text",
    [
        "",
        "metal, disco, classical, country",
        "A. metal\nB. disco\nC. classical",
        "A. metal\nB. disco\nC. classical\nD. country\nE. pop",
        "A. metal B. disco C. classical D. country E. pop",
        "B. metal\nA. disco\nC. classical\nD. country",
        "A. metal\nB. disco\nC. \nD. country",
        "A. metal\nB. disco\nC. classical\nD.  ",
        "A. vitamin B. mix B. two C. three D. four",  # where does B begin?
        "A. metal\nB. disco\nB. pop\nC. classical\nD. country",
        "Options: A. metal\nB. disco\nC. classical\nD. country",
        "A. metal\nB) disco\nC. classical\nD. country",
        "A. x\n" + "B. x\n" * 2000 + "C. x\nD. x",
    ],
)
def test_what_is_not_four_options_in_one_way_is_refused(text):
    with pytest.raises(ValueError, match=r"four options lettered A to D"):
        parse_choices(text)


@pytest.mark.parametrize(
    "text",
    [
        "A. metal \nB. disco \nC. classical \nD. country",
        "(A) metal (B) disco (C) classical (D) country",
        "A)metal\nB)disco\nC)classical\nD)country",
    ],
)
def test_the_layout_is_kept(text):
    choices = parse_choices(text)
    assert lettered(choices.options, choices.layout) == text


def test_lettered_as_mucue_does():
    assert lettered(GENRES) == "A. metal \nB. disco \nC. classical \nD. country"
    assert lettered(["x", "y"], OptionLayout("(", ") ", " ")) == "(A) x (B) y"


def test_the_prompt_is_the_benchmarks_own_in_its_own_order():
    text = "A. metal\nB. disco\n\nC.classical\nD. country \n"
    choices = parse_choices(text)
    question = BenchmarkQuestion(
        id="x", set="s", group="g", song=Song("k", lambda: b""), prompt="Which? {options} Say {it}.",
        options=choices.options, answer=0, layout=choices.layout, options_text=text,
    )  # fmt: skip
    assert prompt_of(question, (0, 1, 2, 3)) == f"Which? {text} Say {{it}}."
    assert prompt_of(question, (1, 0, 2, 3)) == "Which? A. disco \nB. metal \nC. classical \nD. country Say {it}."
