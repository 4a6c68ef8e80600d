import pytest

from data_pipelines.sources.groove import GROOVE, METERS, STYLES
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone

HEADS = "drummer,session,id,style,bpm,beat_type,time_signature,midi_filename,audio_filename,duration,split"
EVAL = "drummer1/eval_session/1_funk-groove1_138_beat_4-4"
SWING = "drummer3/session2/4_jazz_120_beat_6-8"
FILL = "drummer3/session2/5_rock_96_fill_4-4"
EVAL_ROW = (
    f"drummer1,drummer1/eval_session,drummer1/eval_session/1,funk/groove1,138,beat,4-4,{EVAL}.mid,{EVAL}.wav,27.8,test"
)
ROWS = (
    EVAL_ROW,
    f"drummer3,drummer3/session2,drummer3/session2/4,jazz,120,beat,6-8,{SWING}.mid,{SWING}.wav,9.1,validation",
    f"drummer3,drummer3/session2,drummer3/session2/5,rock,96,fill,4-4,{FILL}.mid,{FILL}.wav,2.1,train",
    "drummer3,drummer3/session2,drummer3/session2/6,rock,96,beat,4-4,drummer3/6.mid,,8.1,train",
)


@pytest.fixture
def folder(tmp_path):
    write_text(tmp_path / "groove/info.csv", "\n".join([HEADS, *ROWS]))
    for name in (EVAL, SWING, FILL):
        write_tone(tmp_path / f"groove/{name}.wav")
    return tmp_path


def test_reads_the_beats_with_audio(folder):
    clips = read_checked(GROOVE, folder)
    assert list(clips) == ["groove-drummer1-eval_session-1", "groove-drummer3-session2-4"]
    first, second = clips.values()
    assert (first.audio, first.split) == (f"groove/{EVAL}.wav", "test")
    assert answers(first) == {"style": ("funk",), "tempo": ("138",), "meter": ("4/4",)}
    assert [label.pool for label in first.labels] == [STYLES, (), METERS]
    assert second.split == "validation"
    assert answers(second) == {"style": ("jazz",), "tempo": ("120",), "meter": ("6/8",)}


def test_the_folder_itself(folder):
    assert [clip.audio for clip in GROOVE.read(folder / "groove")] == [f"{EVAL}.wav", f"{SWING}.wav"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (EVAL_ROW.replace("funk/", "fonk/"), r"unknown style 'fonk/groove1' \(did you mean 'funk'\?\)"),
        (EVAL_ROW.replace(",138,", ",fast,"), "bpm must be whole beats a minute, not 'fast'"),
        (EVAL_ROW.replace(",138,", ",0,"), "bpm must be whole beats a minute, not '0'"),
        (EVAL_ROW.replace(",138,", f",{'1' * 5000},"), "bpm must be whole beats a minute, not '111"),
        (EVAL_ROW.replace(",4-4,", ",7-4,"), "unknown time_signature '7-4'"),
        (EVAL_ROW.replace(",test", ",eval"), "split must be train, validation or test, not 'eval'"),
        (EVAL_ROW.replace(f"{EVAL}.wav", "../x.wav"), r"'\.\./x\.wav' lies outside the folder"),
        (EVAL_ROW.replace(f"{EVAL}.wav", "/x.wav"), r"'/x\.wav' lies outside the folder"),
        (EVAL_ROW.replace(",beat,", ",beet,"), "beat_type must be beat or fill, not 'beet'"),
        (EVAL_ROW.replace("drummer1/eval_session/1,", "a b,"), "'a b' is no id"),
        (EVAL_ROW + ",1", "12 cells below 11 columns"),
    ],
)
def test_bad_rows_are_named(folder, row, message):
    write_text(folder / "groove/info.csv", f"{HEADS}\n{ROWS[1]}\n{row}\n")
    with pytest.raises(ManifestError, match=rf"groove/info\.csv, line 3: {message}"):
        list(GROOVE.read(folder))


def test_other_tables_are_refused(folder):
    write_text(folder / "groove/info.csv", HEADS.replace("bpm", "tempo"))
    with pytest.raises(ManifestError, match=r"line 1: no column 'bpm'"):
        list(GROOVE.read(folder))
    with pytest.raises(ManifestError, match=r"holds no info\.csv and no groove/info\.csv"):
        list(GROOVE.read(folder / "groove/drummer1"))
