"""`everwarm key`: a new API key and the line that lets it in. Nothing is written or sent; only the hash need be kept.

The line goes to stdout and the key to stderr, so that `everwarm key >> keys` adds the one and shows the other.
"""

import json

import typer

from everwarm.api_keys import ApiKey, Limits, digest_of, line_of, new_key


def run_key(name: str, concurrent: int | None, audio_s_per_minute: int | None, *, as_json: bool) -> None:
    """Print a key that nobody has yet, and its line in the file of keys."""
    key = new_key()
    line = line_of(ApiKey(digest_of(key), name, Limits(concurrent, audio_s_per_minute)))
    if as_json:
        typer.echo(json.dumps({"key": key, "line": line}))
        return
    typer.echo(f"the caller's key, which cannot be shown again:\n\n    {key}\n", err=True)
    typer.echo("the gateway's line, for its file of keys:\n", err=True)
    typer.echo(line)
