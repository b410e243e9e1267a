"""The log of a process, as whoever reads its lines sees it."""

import json
import subprocess
import sys

TALKATIVE = """
import logging, os, threading, time
from everwarm_core.logs import configure_logging, silence_other_threads

def talk(heard):
    while True:
        logging.info("talk")
        heard.set()

configure_logging(json=True)
heard = threading.Event()
threading.Thread(target=talk, args=(heard,), daemon=True).start()
heard.wait()
silence_other_threads()
logging.error("last words")
time.sleep(0.1)  # in which the other one would go on
os._exit(0)
"""


def test_what_a_process_tells_once_other_threads_are_silenced_is_the_last_line_of_its_log() -> None:
    ended = subprocess.run([sys.executable, "-c", TALKATIVE], stderr=subprocess.PIPE, timeout=60, check=True)
    first, *_, last = (json.loads(line)["event"] for line in ended.stderr.splitlines())
    assert (first, last) == ("talk", "last words")
