"""Sends one utterance to a pod and brings its answer back; what fails on the way is tried on another pod.

Both `Client` and the gateway use it. The body stays replayable until an answer has begun, so a pod that refuses,
dies, hangs or answers nonsense costs a retry, not the utterance:

- full or draining: said before the body is read; the next pod at once, and when all were asked, a short wait in line for
  a place to come free, until the caller's deadline. Then the pods' own 503 is the caller's answer. Whoever comes later
  stands behind those who wait.
- dead, cut off, hung, 5xx: another pod, within the retry budget, at most `MAX_FAILURES` times for one utterance, for
  it may be the utterance that kills them. A pod that cannot even be connected to was not killed by it, and does not
  count. A pod has hung when it takes a multiple of the time expected, or when the registry has lost it while its
  answer is awaited.
- unusually slow: another pod is asked beside it, on an idle slot only and within the same budget; whoever answers first
  is believed. A hung pod then costs a second and not eight. Nothing new is sent to the slow one meanwhile, and when its
  heartbeats are missing too, it has hung.
- a kept-alive connection that turns out dead says nothing about the pod; the same pod is asked again.
- any other 4xx is the caller's answer.

Whole answers are read to the end before they count, so a pod may die in the middle of one. Event streams are handed
over as they come and cannot be repeated once their first byte is out.

`dispatcher` starts a `delivery` for each utterance; that makes an `attempt` on one pod after another, and a `hedge` beside
one that is slow; `judging` says what an answer means and when one is late. `direct` is for who knows one address only.
"""

from everwarm.dispatch.direct import DirectDispatcher
from everwarm.dispatch.dispatcher import Dispatcher
from everwarm.dispatch.exchange import Answer, Body, BytesBody, Call, Exchange
from everwarm.dispatch.judging import RECORDING_S
from everwarm.dispatch.pod_http import PodHttp

__all__ = [
    "RECORDING_S",
    "Answer",
    "Body",
    "BytesBody",
    "Call",
    "DirectDispatcher",
    "Dispatcher",
    "Exchange",
    "PodHttp",
]
