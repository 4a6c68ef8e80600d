import time

import pytest

from mufun_jax.evaluate.letters.letter import read_letter

GENRES = ("metal", "disco", "classical", "country")
KEYS = ("A major", "C", "D minor", "A")
A, B, C, D = range(4)

OF_GENRES = [
    # A letter alone.
    ("B", B), ("b", B), ("(b)", B), ("(B)", B), ("[B]", B), ("B.", B), ("B)", B), ("B:", B), ("B\n", B), (" B ", B),
    ("**B**", B), ("`B`", B), ("*B*.", B), ("__B__", B), ("'B'", B), ("“B”", B), ("Ｂ", B), ("（Ｂ）", B), ("B。", B),
    ("Ⓑ", B),
    ("B!", B), ("### B", B), ("- B", B), ("> B", B), ("$B$", B), ("a", A), ("A", A), ("A.", A), ("d", D),
    ("B<|im_end|>", B),
    ("B</s>", B), ("B?", B),
    # A text alone.
    ("disco", B), ("Disco.", B), ("DISCO", B), ("\"disco\"", B), ("disco\n\n", B), ("**Disco**", B), ("country!", D),
    # A letter with its text.
    ("B) disco", B), ("B. disco", B), ("B: disco", B), ("B - disco", B), ("B disco", B), ("(B) disco", B),
    ("(B)disco", B),
    ("B.disco", B), ("B.\ndisco", B), ("**B.** Disco", B), ("b) disco", B), ("B: Disco.", B), ("B, disco", B),
    ("B (disco)", B),
    ("disco (B)", B), ("Option B: disco", B), ("B) disco\n", B), ("1. B", B),
    # Said in a sentence.
    ("Answer: B", B), ("Answer: B. The song has a steady beat, unlike A.", B), ("ANSWER: (B)", B), ("Answer B", B),
    ("The answer is B", B), ("The answer is B.", B), ("The answer is (B).", B), ("The answer is: B", B),
    ("The answer is **B**", B), ("The correct option is B: disco", B), ("The correct answer is B) disco.", B),
    ("The correct answer is disco.", B), ("The correct answer is 'disco'.", B),
    ("The correct answer is:\n\nB. disco", B),
    ("The correct choice would be B", B), ("The best choice is option B.", B), ("Correct option: B", B),
    ("Option B", B),
    ("Option (B) is correct.", B), ("B is correct", B), ("B is the correct answer.", B), ("(B) is the best answer", B),
    ("A is the correct answer", A), ("A is correct because it is heavy", A), ("Disco is the right answer.", B),
    ("I choose B", B), ("I'd go with B.", B), ("I would say disco", B), ("I pick (C)", C), ("My answer is D", D),
    ("My guess is C.", C), ("I think it's option C because A and B are too slow", C),
    ("I think it is C because A and B are too slow.", C),
    ("This is B.", B), ("The answer is most likely B", B), ("The answer is definitely disco", B),
    ("The answer is a disco song", B),
    ("The answer is A because of the guitars", A), ("The answer is a.", A), ("The answer is b", B), ("Choice: C", C),
    ("Based on the audio, the correct option is D. country", D), ("Final answer: B", B), ("Answer - B", B),
    ("Answer = B", B),
    ("Sure! The answer is B.", B), ("B. The song has four on the floor.", B),
    ("B\n\nThe song has four on the floor.", B),
    ("B, because of the bass line", B), ("B because it is danceable", B), ("Disco, because it is danceable", B),
    ("B. disco. Unlike A, it has no distortion.", B), ("B. It is actually disco.", B), ("Let's go with C.", C),
    ("The letter is B", B), ("Among these, B fits best", B), ("B is the most likely answer", B),
    ("Definitely B.", B), ("So, B.", B), ("Correct: B", B), ("<p>B</p>", B), ("Assistant: B", B),
    ("answer -> B", B), ("I vote B", B),
    ("A - metal", A), ("A metal song", A), ("A, since the guitars are heavy", A), ("Answer: A metal", A),
    ("Answer:\nB", B),
    ("The answer is A disco song", B), ("B\nExplanation: option A is metal", B),
    ("I am confident that the answer is B.", B),
    ("**B. disco**\n\nExplanation: The song uses A and C chords", B), ("Only B remains", B), ("B, not A", B),
    ("B instead of A", B),
    ("Options A and B are too slow, C is too fast. D fits best.", D), ("Is it A? No. The answer is B.", B),
    ("The answer is B and A is slower", B),
    # Only mentioned.
    ("It is a classical piece", C), ("A disco song", B), ("This sounds like disco to me.", B),
    ("A classical piece of music", C),
    ("It sounds like a country song with a fiddle", D), ("I hear disco", B),
    ("The genre of this song is Disco music.", B),
    ("not B but C", C), ("It's not metal, it's disco.", B), ("It is not metal but disco", B),
    ("disco rather than metal", B),
    ("Rather than metal, this is disco", B), ("There is no doubt that it is disco", B), ("B B B B", B),
    ("disco disco", B),
    # Reasoning, with an end.
    ("A is too slow. B is too fast. The answer is C.", C),
    ("The answer is A. No, wait. Therefore, the answer is B.", B),
    ("Option A is too slow. Option B is too fast. So the answer is C.", C), ("It could be A or B. Final answer: B", B),
    ("The tempo is fast and there are strings.\nB", B),
    ("A. metal\nB. disco\nC. classical\nD. country\n\nAnswer: B", B),
    ("A. metal\nB. disco\nC. classical\nD. country\n\nB", B),
    ("A. metal B. disco C. classical D. country. The answer is D", D),
    ("The answer is not B but C", C), ("The answer is B, not C", B), ("Option B is wrong. Option C is right.", C),
    ("I don't think the answer is A. The answer is D.", D),
    # Marked.
    ("\\boxed{B}", B), ("$\\boxed{\\text{B}}$", B), ("So the answer is \\boxed{C}, not A or B.", C),
    ("<answer>B</answer>", B),
    ("<answer> (B) disco </answer>", B), ("I heard A and C. <answer>disco</answer>", B), ("<answer>B", B),
    ('{"answer": "B"}', B),
    ('```json\n{"answer": "disco", "reason": "A is too slow"}\n```', B), ("{'answer': 'C'}", C),
    ('{"final_answer": "D"}', D),
    ("<think>A or B? It is A.</think>B", B), ("<think>maybe C</think>\n\nThe answer is B.", B),
    ("A is too slow</think>\nB", B),
    # In Chinese.
    ("答案是B", B), ("答案是 B。", B), ("正确答案是：B", B), ("答案：（B）", B), ("选B", B),
    ("我选择B，因为节奏很快", B), ("正确选项为C", C),
    ("所以选C", C), ("答案是disco", B), ("不是A，答案是B", B),
]  # fmt: skip

UNREADABLE_GENRES = [
    "", " ", "\n", ".", "E", "(e)", "Z", "?", "I", "5", "A or B", "A/B", "A, B", "A and B", "A & B",
    "Both A and B", "B or C.",
    "The answer is A or B", "The answer is both A and B", "The answer is A, B and C",
    "The answer is either B or C", "Answer: A/B",
    "none of the above", "None", "all of the above", "I don't know", "I cannot tell.", "not A", "It is not disco",
    "It isn't B",
    "not A or B", "neither A nor B", "not A, B or C", "B is wrong", "Option B is incorrect", "The answer is not B",
    "The answer is E",
    "Answer: E", "Option E is correct", "It could be metal or disco.", "metal, disco", "metal and country",
    "A song",
    "I think this is a song", "A man sings", "The options are A, B, C and D.",
    "A. metal\nB. disco\nC. classical\nD. country",
    "A. metal B. disco C. classical D. country", "B: metal", "The correct option is B: metal", "B. classical",
    "disco (A)",
    "The answer is A. The answer is B.", "B. Wait, no, C.", "B. disco. Actually, it is classical",
    "<think>The answer is B",
    "<think>B", "<answer>E</answer>", "<answer></answer>", "<answer>A</answer> <answer>B</answer>",
    "\\boxed{A} or \\boxed{B}",
    '{"answer": "A", "choice": "B"}', "Is it B?", "Could it be disco?", "pop", "It is a jazz piece",
    "The song is in C", "C major",
    "section B returns", "B minor", "discotheque", "abcd", "ABCD", "BB", "A B C D", "rap metaldisco",
    "unlike disco", "A is too slow",
    "It is not metal, disco", "not A, B", "Is the answer B?", "The option: B is wrong",
    "N/A", "n/a", "B; C", "disco. metal.", "disco/metal", "B over A", "2", "option 2", "The first option",
    "A: disco", "B,C", "BC",
    "B and maybe C", "vitamin C", "It has elements of both disco and metal", "Only one of B and C",
    "A, B, C are wrong, so D",
    "The answer is A man singing", "There is no correct option",
    "Would that be B? Yes.", '{"answer": 1}', "A C major chord",
    "答案不是B", "答案是A或B", "A和B", "I'd say it's between A and B", "The answer is Apple",
    "B. disco or C. classical",
    "A. No. B. No. C. Maybe. D. Yes", "rather than A, B or C", "I would not choose B",
]  # fmt: skip


@pytest.mark.parametrize(("reply", "place"), OF_GENRES)
def test_a_readable_reply(reply, place):
    assert read_letter(reply, GENRES) == place


@pytest.mark.parametrize("reply", UNREADABLE_GENRES)
def test_an_unreadable_reply_is_never_guessed(reply):
    assert read_letter(reply, GENRES) is None


NOTES = ("C", "E", "C#", "G")
TONICS = ("C major", "Db major", "A minor", "B flat minor")
MINORS = ("minor", "D minor", "major", "D major")
BPM = ("120", "12", "60", "121.5")
YES_NO = ("Yes", "No")
SHIFTED = ("B minor", "A minor", "C# minor", "D major")
PARTS = ("0:00-0:31", "0:31-1:02", "1:02-1:10", "0:00")
LAST_NONE = ("metal", "disco", "classical", "None of the above")


@pytest.mark.parametrize(
    ("options", "reply", "place"),
    [
        # An option's text is a letter: the letter wins where it stands alone or as the answer.
        (KEYS, "A", A), (KEYS, "C", C), (KEYS, "D", D), (KEYS, "(C)", C), (KEYS, "The answer is C", C),
        (KEYS, "D. A", D),
        (KEYS, "A major", A), (KEYS, "A. A major", A), (KEYS, "It is in A major.", A), (KEYS, "B. C", B),
        (KEYS, "C. C", None),
        (KEYS, "The key is C.", None), (KEYS, "D minor", C), (KEYS, "C: D minor", C), (KEYS, "D: D minor", None),
        (KEYS, "It is C.", None), (KEYS, "The key is D minor", C),
        (NOTES, "E", B), (NOTES, "C#", C), (NOTES, "The answer is C#.", C), (NOTES, "C♯", C), (NOTES, "G", D),
        (NOTES, "C", C),
        (NOTES, "The note is G", D), (NOTES, "The note is E.", B), (NOTES, "B", B), (NOTES, "F", None), (NOTES, "A", A),
        (TONICS, "The key is C", None), (TONICS, "It is C.", None), (TONICS, "C", C), (TONICS, "The answer is C", C),
        (TONICS, "The key is C major", A), (TONICS, "C. A minor", C), (TONICS, "A: C major", A),
        (TONICS, "I think B", B),
        (TONICS, "The song is in A.", None), (TONICS, "B. A minor", None),
        # Options that contain one another.
        (MINORS, "minor", A), (MINORS, "D minor", B), (MINORS, "It is in D minor", B), (MINORS, "It is minor.", A),
        (MINORS, "The mode is major", C), (MINORS, "D", D), (MINORS, "D.", D), (MINORS, "D. D major", D),
        (MINORS, "B: D minor", B),
        (MINORS, "D minor or D major", None), (MINORS, "minor, D minor", None), (MINORS, "D. D minor", None),
        (MINORS, "E minor", A),
        (SHIFTED, "B minor", A), (SHIFTED, "A minor", B), (SHIFTED, "B. A minor", B), (SHIFTED, "B", B),
        (SHIFTED, "A. A minor", None),
        (SHIFTED, "The key is B minor.", A), (SHIFTED, "The answer is A minor", B), (SHIFTED, "C♯ minor", C),
        (SHIFTED, "C minor", None),
        (SHIFTED, "The answer is B minor", A), (SHIFTED, "The answer is B: A minor", B), (SHIFTED, "b minor", A),
        (("Option B", "Option A"), "Option B", A), (("rock", "rock and roll"), "It is rock and roll.", B),
        # Numbers.
        (BPM, "120", A), (BPM, "12", B), (BPM, "120 BPM", A), (BPM, "The tempo is 120.", A), (BPM, "about 12 BPM", B),
        (BPM, "121.5", D), (BPM, "121", None), (BPM, "12.5", None), (BPM, "1200", None), (BPM, "A: 120", A),
        (BPM, "B. 120", None),
        (BPM, "The answer is 60", C), (BPM, "60-120", None),
        (PARTS, "0:00", D), (PARTS, "0:00-0:31", A), (PARTS, "It is from 0:31-1:02.", B), (PARTS, "0:00-0:32", None),
        # Yes and no.
        (YES_NO, "Yes, there is no drum.", A), (YES_NO, "No, there is no singing.", B), (YES_NO, "no", B),
        (YES_NO, "B. No", B),
        (YES_NO, "C", None), (YES_NO, "A", A), (YES_NO, "Yes or no", None),
        (LAST_NONE, "none of the above", D), (LAST_NONE, "None of the above.", D),
        (LAST_NONE, "D. None of the above", D),
        # Others.
        (("hip-hop", "jazz"), "Hip hop", A), (("hip-hop", "jazz"), "It's hip-hop!", A),
        (("hip hop", "jazz"), "hip-hop", A),
        (("古典", "爵士", "摇滚", "民谣"), "爵士", B), (("古典", "爵士", "摇滚", "民谣"), "这是一首爵士乐", B),
        (("古典", "爵士", "摇滚", "民谣"), "答案是摇滚", C), (("古典", "爵士", "摇滚", "民谣"), "B、爵士", B),
        (("same", "same", "other"), "same", None), (("same", "same", "other"), "A", A),
        (("same", "same", "other"), "B. same", B),
        (("A child", "A woman", "An adult man"), "A woman", B),
        (("A child", "A woman", "An adult man"), "It is a child.", A),
        (("rock", "rock and roll"), "rock and roll", B), (("rock", "rock and roll"), "It is rock.", A),
        (("x", "y", "z", "w", "v"), "E", 4), (("one (1)", "two (2)"), "two (2)", B), (("a.b", "c+d"), "c+d", B),
        (("C) x", "D"), "B", B), (("", "y"), "y", B), (("", "y"), "A", A), (("...", "y"), "", None),
    ],
)  # fmt: skip
def test_options_that_look_like_letters_or_one_another(options, reply, place):
    assert read_letter(reply, options) == place


def test_there_are_more_than_a_hundred_phrasings():
    assert len({reply for reply, _ in OF_GENRES}) > 100
    assert len(OF_GENRES) == len({reply for reply, _ in OF_GENRES})


def test_a_reply_without_end_is_unreadable():
    assert read_letter("B. " + "It is a song. " * 500, GENRES) == B
    assert read_letter("B. " + "It is a song. " * 5000, GENRES) is None
    assert read_letter("<think>" + "It may be A. " * 5000 + "</think>B", GENRES) == B


@pytest.mark.parametrize("part", ["A or ", "answer is ", "A. ", "not ", "* ", "(", "B\n", "it is B, "])
def test_no_reply_takes_long(part):
    begun = time.process_time()
    read_letter(part * (9_999 // len(part)), GENRES)
    assert time.process_time() - begun < 3
