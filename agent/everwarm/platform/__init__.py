"""The local platform: embedded Valkey, STT pods as processes and the gateway, on one machine, with one lifetime."""
