import pytest

from mufun_jax.evaluate.letters.judge import Judge, ModelJudge, judge_prompt

GENRES = ("metal", "disco", "classical", "country")


class Clerk:
    """A model that says what it is told to, and keeps what it was asked."""

    def __init__(self, says: str):
        self.says, self.asked = says, []

    def __call__(self, prompt: str) -> str:
        self.asked.append(prompt)
        return self.says


@pytest.mark.parametrize(
    ("says", "place"),
    [("B", 1), ("<think>The reply says A, no, D.</think>\n\nD", 3), ("None", None), ("none.", None),
    ("A or B", None), ("", None), ("E", None)],
)  # fmt: skip
def test_its_answer_is_read_by_the_rules(says, place):
    clerk = Clerk(says)
    judge: Judge = ModelJudge(clerk)
    assert judge.judge("Which genre?", GENRES, "the one for dancing") == place
    assert clerk.asked == [judge_prompt("Which genre?", GENRES, "the one for dancing")]


def test_the_prompt_holds_question_options_and_reply():
    prompt = judge_prompt("Which genre?", GENRES, "the one for dancing")
    for part in (
        "Question: Which genre?",
        "A. metal \nB. disco \nC. classical \nD. country",
        "Reply: the one for dancing",
        "None",
    ):
        assert part in prompt


def test_a_mute_model_has_chosen_nothing():
    clerk = Clerk("B")
    assert ModelJudge(clerk).judge("Which genre?", GENRES, " \n") is None
    assert clerk.asked == []


def test_none_as_an_option_is_not_the_judges_none():
    options = ("x", "y", "z", "None.")
    assert ModelJudge(Clerk("D")).judge("Which?", options, "none of them") == 3
    assert ModelJudge(Clerk("Unclear")).judge("Which?", options, "?") is None
    assert judge_prompt("Which?", options, "?").endswith("answer Unclear.")
