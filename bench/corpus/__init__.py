"""The speech on which transcription speed and word error rate are measured: many voices, five languages,
exact texts.

Nothing is downloaded but packages and nothing recorded is in the repository: `texts/` holds what is said, one
utterance a line, and `make` has it spoken on the machine that runs the benchmark. `voices` names the engines
and speakers and installs them, pinned, into an environment of their own; `speak` runs in there and writes the
takes; `sound` adds what a call adds (levels, silence at both ends, noise, a telephone's band) and makes the
set without any speech, on which a transcriber should say nothing. Every choice is drawn from a fixed seed, so
the same packages on the same kind of processor give the same samples; `index.json` carries a digest of them
all.

`load` is the way in for benchmarks: it makes the corpus when the cache has none. `words` counts word errors
in a way that does not punish a transcriber for writing `3:30` or `okay`, and `check` prints the error rate of
every voice, language and noise, which is how voices were chosen: one that the smallest models cannot follow
says nothing about two engines that run the same model.

Known bias: synthetic speech has no hesitations, accents only from voices that speak a language they were not
trained for, and noise that was added afterwards. Absolute error rates are therefore lower than on calls;
differences between two engines on the same audio are what the corpus is for.
"""
