"""What each stage of the curriculum is trained on: open data sets in the place of the authors' unpublished data.

A name stands for the training split of a data set of data_pipelines/sources; validation and test splits are in no
stage. Weights are shares of the drawn examples and need not add up to anything. They are chosen, not tuned: large sets
and those that no other set stands in for get more, small sets little, so that few of their examples are seen often.

- warmup trains the connector alone, on `<audio>` and the first answer of each example. So that answer must always be a
  transcription, and only sets that have nothing else will do: lyrics of up to 30 s, and a guitar's notes and chords.
- align1 is for basic concepts: the words that are sung, what is played, genres and tags.
- align2 adds what is counted or reckoned: pitch, key, tempo, meter, dance, chords; and describing in sentences. What
  align1 taught stays in with small weights.
- context_extend is for length. Only sets of whole songs are in it, since a short clip teaches nothing about 390 s:
  all of a song's lyrics, its sections with their times, tags and instruments of the whole.
- finetune_short has every task there is on short audio, weighted by what its questions are worth rather than by size.
- finetune_long has every task there is on whole songs. It draws on the sets of context_extend, with less of the lyrics,
  which are long and would have most of the loss.

Of mtg_jamendo's tracks the short stages hear the first minute: its tags are of the whole track, and nearly always true
of that. What salami, dali and medleydb say (sections, all of the words, every instrument) is true of a whole song only;
they stand in long stages.
"""

MIXTURES: dict[str, dict[str, float]] = {
    "warmup": {"dali_lines": 4.0, "guitarset_transcription": 1.0},
    "align1": {
        "dali_lines": 4.0,
        "fma": 2.0,
        "gtzan": 0.25,
        "magnatagatune": 2.0,
        "mtg_jamendo": 3.0,
        "nsynth": 1.0,
    },
    "align2": {
        "ballroom": 0.5,
        "dali_lines": 1.0,
        "fma": 0.5,
        "giantsteps_key": 1.0,
        "groove": 0.5,
        "guitarset": 0.5,
        "guitarset_transcription": 0.5,
        "magnatagatune": 0.5,
        "mtg_jamendo": 2.0,
        "musiccaps": 2.0,
        "nsynth": 2.0,
    },
    "context_extend": {"dali": 4.0, "medleydb": 0.25, "mtg_jamendo": 4.0, "salami": 1.0},
    "finetune_short": {
        "ballroom": 1.0,
        "dali_lines": 2.0,
        "fma": 1.0,
        "giantsteps_key": 1.0,
        "groove": 0.5,
        "gtzan": 0.5,
        "guitarset": 1.0,
        "guitarset_transcription": 0.5,
        "magnatagatune": 1.0,
        "mtg_jamendo": 2.0,
        "musiccaps": 2.0,
        "nsynth": 2.0,
    },
    "finetune_long": {"dali": 2.0, "medleydb": 0.5, "mtg_jamendo": 4.0, "salami": 2.0},
}
