"""The registry: which pod holds which model key warm, kept in Redis by the pods and read from there by everyone.

`names` spells the keys, `records` are the values. Pods write with `writer`, everyone else reads with `reader`; `view`
holds the reader's decisions as pure functions, `connection` is the only place that makes a Redis client. All of it
is soft state: whatever Redis loses, pods say again within one heartbeat.
"""
