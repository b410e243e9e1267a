"""Speech as it is spoken: a stream of audio goes in, utterances and their transcripts come out.

`listener` cuts the stream into utterances and has each transcribed; it knows no protocol. `session` is OpenAI's realtime
protocol around it. Both run wherever the audio arrives, in a pod, in the gateway or in an agent, and differ only in the
`Transcriber` they are given: a pod's slots, or the same dispatch to any warm pod that a file takes. So the audio of an
utterance stays with whoever heard it until its final is there, and a pod that dies costs a retry (ADR 0013).

The order of the parts: `audio` (formats) -> `speech` (is somebody speaking?) -> `endpoint` (where utterances begin and end)
-> `listener` -> `events`, `config` (the wire) -> `session`.
"""
