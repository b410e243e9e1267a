"""Before and after, in one run: a model made per utterance, a model cached in each worker, and warm pods.

The same speech is played through the same number of worker processes in all three ways, with the same settings of
Whisper. What is measured is counted or sampled from outside the workers; what is claimed is checked, and the demo
fails when a claim does not hold.
"""
