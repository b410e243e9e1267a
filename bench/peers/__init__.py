"""The servers that Everwarm's speed is compared with: Ray Serve and LitServe, each in an environment of its own.

All run faster-whisper on the same weights and answer alike, so that one client (`bench.peers.client`) drives them:
`POST /transcribe` takes s16le samples, mono, 16 kHz, and answers `{"text": ...}`; `GET /health` answers 200 once the
server takes requests. The two `*_server.py` are scripts of those environments and are not imported from here; each is
written as its framework's documentation shows it. `bench.peers.environments` installs them from the `*.lock` files,
`bench.peers.serving` starts and ends them.
"""
