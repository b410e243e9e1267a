"""The corpus's pure parts: word errors, numbers in words, sounds, the plan, and the choice for latency."""

import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.corpus import sound
from bench.corpus.load import LATENCY_S, Utterance, latency_set
from bench.corpus.make import CAST, LEAST_WORDS, NOISES, READINGS, lines, planned
from bench.corpus.numerals import LARGEST, cardinal, ordinal
from bench.corpus.voices import VOICES
from bench.corpus.wav import read_wav, write_wav
from bench.corpus.words import Errors, distance, normalised, paired_bootstrap, word_errors

LANGUAGES = tuple(CAST)


def languages() -> st.SearchStrategy[str]:
    return st.sampled_from(LANGUAGES)


def sentences() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(["a", "bill", "is", "due", "today"]), max_size=12)


# --- Normalisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "said", "written"),
    [
        ("en", "at half past eight, okay?", "At half-past eight, OK"),
        ("en", "my mother turns eighty", "My mother turns 80."),
        ("en", "one thousand two hundred dollars", "$1,200"),
        ("en", "one thousand two hundred dollars", "1,200 dollars"),
        ("en", "three dollars fifty", "$3.50"),
        ("de", "drei Euro fünfzig", "3,50 €"),
        ("fr", "deux mille trois cents euros", "2 300 €"),
        ("en", "fifteen hundred", "1500"),
        ("en", "fifteen hundred dollars", "$1,500"),
        ("en", "a hundred and five guests", "105 guests"),
        ("en", "at five o'clock", "at 5:00"),
        ("en", "at three thirty pm", "at 3:30 p.m."),
        ("en", "the first of February", "the 1st of February"),
        ("en", "born in nineteen ninety", "born in 1990"),
        ("en", "two point five percent", "2.5%"),
        ("en", "I can't, it isn't here and they're late", "I cannot; it is not here and they are late"),
        ("en", "I don't recognise my neighbour's colour", "I don’t recognize my neighbor's color"),
        ("en", "Doctor Miller's wifi", "Dr. Miller's Wi-Fi"),
        ("en", "sixty-five", "65"),
        ("de", "zweihundert Euro", "200 €"),
        ("de", "einhundertfünf Straßen", "105 Strassen"),
        ("de", "um fünfzehn Uhr dreißig", "um 15:30 Uhr"),
        ("de", "am dritten März", "am 3. März"),
        ("de", "eintausendzweihundert", "1.200"),
        ("de", "neunzehnhundertneunzig", "1990"),
        ("fr", "deux cents euros", "200 €"),
        ("fr", "quatre-vingts ans", "80 ans"),
        ("fr", "quatre-vingt-dix-sept", "97"),
        ("fr", "à quinze heures trente", "à 15h30"),
        ("fr", "le premier étage", "le 1er étage"),
        ("fr", "j'ai soixante et onze ans", "J’ai 71 ans."),
        ("es", "doscientos euros", "200 euros"),
        ("es", "a las tres y media", "a las 3:30"),
        ("es", "treinta y un", "treinta y un"),
        ("es", "mil doscientos", "1.200"),
        ("it", "duecento euro", "200 euro"),
        ("it", "l'ascensore", "L’ascensore"),
        ("it", "ottantotto", "88"),
    ],
)
def test_two_spellings_of_the_same_speech_are_no_error(language: str, said: str, written: str) -> None:
    assert normalised(written, language) == normalised(said, language)


@pytest.mark.parametrize(
    ("language", "said", "heard"),
    [
        ("en", "fifteen", "fifty"),
        ("en", "I can go", "I can't go"),
        ("de", "schon", "schön"),
        ("fr", "ou", "où"),
        ("es", "papa", "papá"),
        ("it", "e", "è"),
    ],
)
def test_different_words_stay_different(language: str, said: str, heard: str) -> None:
    assert word_errors(said, heard, language).errors > 0


@given(language=languages(), number=st.integers(0, 999))  # one of four digits may be a year
def test_a_number_in_digits_and_in_words_is_the_same(language: str, number: int) -> None:
    assert normalised(str(number), language) == normalised(cardinal(number, language), language)


@given(language=languages(), number=st.integers(1000, LARGEST))
def test_a_number_with_its_thousands_grouped_is_no_year(language: str, number: int) -> None:
    grouped = f"{number:,}".replace(",", "," if language == "en" else ".")
    assert normalised(grouped, language) == normalised(cardinal(number, language), language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_numbers_share_their_words(language: str) -> None:
    assert len({cardinal(number, language) for number in range(LARGEST + 1)}) == LARGEST + 1


@given(language=languages(), number=st.integers(1, 99))
def test_ordinals_have_words_in_every_language(language: str, number: int) -> None:
    assert ordinal(number, language).replace(" ", "").isalpha()


def test_a_number_out_of_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="10000"):
        cardinal(LARGEST + 1, "en")


@given(language=languages(), text=st.text(max_size=60))
def test_normalising_any_text_yields_words_without_capitals_digits_or_punctuation(
    language: str, text: str
) -> None:
    for word in normalised(text, language):
        assert word
        assert word == word.lower()
        assert not any(sign in word for sign in " .,;:!?'’-0123456789")


@pytest.mark.parametrize("language", LANGUAGES)
def test_normalising_a_line_of_the_corpus_twice_changes_nothing(language: str) -> None:
    for line in lines(language):
        once = normalised(line, language)
        assert normalised(" ".join(once), language) == once


# --- Word errors -----------------------------------------------------------------------------------------------------


def test_word_errors_count_substitutions_deletions_and_insertions() -> None:
    assert word_errors("please cancel my last order", "please cancel the last big order", "en") == Errors(
        2, 5
    )
    assert word_errors("please cancel my order", "", "en") == Errors(4, 4)
    assert word_errors("", "thank you", "en") == Errors(2, 0)


@given(said=sentences(), heard=sentences())
def test_distance_is_symmetric_and_bounded_by_the_longer_text(said: list[str], heard: list[str]) -> None:
    found = distance(said, heard)
    assert found == distance(heard, said)
    assert abs(len(said) - len(heard)) <= found <= max(len(said), len(heard))
    assert (found == 0) == (said == heard)


@given(said=sentences(), place=st.integers(0, 12))
def test_one_inserted_word_is_one_error(said: list[str], place: int) -> None:
    assert distance(said, [*said[:place], "unheard", *said[place:]]) == 1


# --- Interval --------------------------------------------------------------------------------------------------------


def test_interval_is_a_point_where_the_engines_never_differ() -> None:
    assert paired_bootstrap([0] * 50, [10] * 50, seed=1, rounds=500) == (0.0, 0.0)


def test_interval_is_above_zero_where_one_engine_is_always_worse() -> None:
    low, high = paired_bootstrap([1] * 200, [10] * 200, seed=1, rounds=500)
    assert low == pytest.approx(10)
    assert high == pytest.approx(10)


@given(
    utterances=st.lists(st.tuples(st.integers(-3, 3), st.integers(1, 20)), min_size=5, max_size=60),
    seed=st.integers(0, 99),
)
def test_interval_is_reproducible_ordered_and_turns_with_the_sign(
    utterances: list[tuple[int, int]], seed: int
) -> None:
    differences, words = [d for d, _ in utterances], [w for _, w in utterances]
    low, high = paired_bootstrap(differences, words, seed, rounds=200)
    assert low <= high
    assert paired_bootstrap(differences, words, seed, rounds=200) == (low, high)
    turned = paired_bootstrap([-d for d in differences], words, seed, rounds=200)
    assert turned == pytest.approx((-high, -low))


def test_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    """95 % within what 200 trials allow."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        words = rng.integers(3, 20, 120)
        differences = [int(x) for x in rng.binomial(words, 0.05) - rng.binomial(words, 0.03)]
        low, high = paired_bootstrap(differences, [int(w) for w in words], trial, rounds=400)
        covered += low <= 2.0 <= high
    assert 175 <= covered <= 200


def test_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one word"):
        paired_bootstrap([], [], seed=1)
    with pytest.raises(ValueError, match="as many"):
        paired_bootstrap([1], [1, 2], seed=1)


# --- Sound -----------------------------------------------------------------------------------------------------------


def tone(seconds: float = 1.0, level: float = 0.1) -> sound.Samples:
    samples: sound.Samples = (
        level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * sound.RATE_HZ)) / sound.RATE_HZ)
    ).astype(np.float32)
    return samples


@pytest.mark.parametrize("snr_db", [20.0, 10.0])
def test_noise_stands_as_far_below_the_speech_as_asked(snr_db: float) -> None:
    speech = sound.with_margins(tone(), 0.5, 0.5)
    noise = sound.coloured(np.random.default_rng(1), 48_000, 1.0)
    added = sound.with_noise(speech, noise, snr_db) - speech
    measured = 20 * np.log10(sound.speech_level(speech) / np.sqrt(np.mean(added**2)))
    assert measured == pytest.approx(snr_db, abs=0.1)


@given(seed=st.integers(0, 99), before_s=st.floats(0.1, 0.5), after_s=st.floats(0.1, 0.5))
def test_trimming_takes_away_the_margins_that_were_added(seed: int, before_s: float, after_s: float) -> None:
    seconds = float(np.random.default_rng(seed).uniform(0.3, 1.5))
    kept = sound.trimmed(sound.with_margins(tone(seconds), before_s, after_s))
    assert len(kept) / sound.RATE_HZ == pytest.approx(seconds, abs=2.5 * sound.FRAME_S)


def test_a_telephone_lets_only_its_band_through() -> None:
    heard = sound.telephone(sound.coloured(np.random.default_rng(1), 32_000, 0.0) * np.float32(0.1))
    power = np.abs(np.fft.rfft(heard)) ** 2
    hz = np.fft.rfftfreq(len(heard), 1 / sound.RATE_HZ)
    outside = power[(hz < 250) | (hz > 3800)].sum()
    assert outside < 0.001 * power.sum()


def test_babble_is_as_long_as_asked_even_from_short_takes() -> None:
    rng = np.random.default_rng(1)
    assert len(sound.babble(rng, [tone(0.2), tone(0.3)], 40_000)) == 40_000


def test_sounds_without_speech_are_varied_bounded_and_reproducible() -> None:
    first = list(sound.non_speech(np.random.default_rng(1)))
    again = list(sound.non_speech(np.random.default_rng(1)))
    assert 55 <= len(first) <= 70
    assert len({kind for kind, _ in first}) >= 10
    for (kind, samples), (_, same) in zip(first, again, strict=True):
        assert 0.5 <= len(samples) / sound.RATE_HZ <= 10, kind
        assert np.abs(samples).max() <= 1, kind
        assert samples.dtype == np.float32, kind
        assert np.array_equal(samples, same), kind


def test_a_wav_file_holds_what_was_written(tmp_path: Path) -> None:
    samples = tone()
    write_wav(tmp_path / "tone.wav", samples)
    assert np.allclose(read_wav(tmp_path / "tone.wav"), samples, atol=1 / 32768)


def test_a_wav_file_of_another_rate_is_refused(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "other.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(b"\0\0")
    with pytest.raises(ValueError, match="16 kHz"):
        read_wav(tmp_path / "other.wav")


# --- Texts and plan --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_line_has_two_to_forty_five_words_and_occurs_once(language: str) -> None:
    text = lines(language)
    assert len(set(text)) == len(text)
    assert all(2 <= len(line.split()) <= 45 for line in text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_spell_their_numbers(language: str) -> None:
    assert not any(sign.isdigit() for line in lines(language) for sign in line)


def test_the_plan_has_words_to_spare_and_is_the_same_every_time() -> None:
    takes = planned()
    assert sum(len(normalised(take.text, take.voice.language)) for take in takes) >= 1.3 * LEAST_WORDS
    assert planned() == takes
    assert len({take.id for take in takes}) == len(takes)


def test_every_english_line_is_spoken_by_two_voices() -> None:
    voices = Counter(take.text for take in planned() if take.voice.language == "en")
    assert set(voices.values()) == {READINGS["en"]} == {2}
    pairs = Counter((take.text, take.voice.name) for take in planned())
    assert set(pairs.values()) == {1}


def test_every_voice_speaks_its_own_language_and_only_that() -> None:
    assert {take.voice for take in planned()} == set(VOICES)
    for language, cast in CAST.items():
        assert set(cast) == {voice.name for voice in VOICES if voice.language == language}


def test_about_half_of_every_voice_is_clean_and_every_noise_occurs() -> None:
    takes = planned()
    assert {take.noise for take in takes} == set(NOISES)
    for voice in VOICES:
        noises = [take.noise for take in takes if take.voice == voice]
        assert 0.3 <= noises.count("clean") / len(noises) <= 0.6, voice.name


# --- Latency set -----------------------------------------------------------------------------------------------------


def utterance(id_: str, seconds: float, *, voice: str = "joe", language: str = "en") -> Utterance:
    audio = np.zeros(int(seconds * sound.RATE_HZ), np.float32)
    return Utterance(id_, audio, "something", language, voice, "clean")


def corpora() -> st.SearchStrategy[list[Utterance]]:
    parts = st.tuples(
        st.floats(0.3, 20), st.sampled_from(["joe", "emma", "heart"]), st.sampled_from(["en", "en", "de"])
    )
    return st.lists(parts, min_size=20, max_size=60).map(
        lambda all_parts: [
            utterance(f"u-{index}", seconds, voice=voice, language=language)
            for index, (seconds, voice, language) in enumerate(all_parts)
        ]
    )


@given(corpus=corpora(), count=st.integers(1, 20))
def test_latency_set_is_english_of_the_right_length_and_without_repetition(
    corpus: list[Utterance], count: int
) -> None:
    fits = [u for u in corpus if u.language == "en" and LATENCY_S[0] <= u.seconds <= LATENCY_S[1]]
    if len(fits) < count:
        with pytest.raises(ValueError, match="wanted"):
            latency_set(corpus, count)
        return
    chosen = latency_set(corpus, count)
    assert len({u.id for u in chosen}) == count
    assert all(u in fits for u in chosen)
    assert [u.id for u in latency_set(list(reversed(corpus)), count)] == [u.id for u in chosen]


def test_latency_set_spreads_over_lengths_and_voices() -> None:
    corpus = [
        utterance(f"u-{n}", 0.7 + 10 * (n / 600) ** 2, voice=("joe", "emma", "heart")[n % 3])
        for n in range(600)
    ]
    chosen = latency_set(corpus)
    voices = Counter(u.voice for u in chosen)
    assert max(voices.values()) - min(voices.values()) <= 2
    assert sum(u.seconds < 2 for u in chosen) >= 10
    assert sum(u.seconds > 6 for u in chosen) >= 10
