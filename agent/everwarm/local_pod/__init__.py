"""One pod for a whole machine, for the time in which no other can be had: started once, shared, and gone when unused.

Every user (a LiveKit worker process) holds a `LocalPod`; it sees to it that exactly one guardian runs for the model
and reads where its pod listens. The guardian (`python -m everwarm.local_pod`) owns the pod as a child process. Who is
there is told by file locks and nothing else: the kernel releases them however a process ends, so a SIGKILL leaves
neither a user that is counted for ever nor a pod that nobody will stop. `place` says which files, and what each lock
means.
"""

from everwarm.local_pod.user import LOOK_EVERY_S, LocalPod, ensure_installed

__all__ = ["LOOK_EVERY_S", "LocalPod", "ensure_installed"]
