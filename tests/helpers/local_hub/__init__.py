"""
A Hub on the loopback device, for tests: it speaks the HTTP API of huggingface.co to the real clients.

`LocalHub` is the server. Clients reach it through `HF_ENDPOINT`, which huggingface_hub reads when it is imported:
[`local_hub.client.run_client`] therefore runs them in a process of their own. `hub.faults` makes the network bad, and
`hub.log` tells what was asked. Uploads need `HF_HUB_DISABLE_XET=1`, as there is no Xet storage behind this Hub; then
the clients use Git LFS.
"""

from .faults import Faults
from .server import LocalHub


__all__ = ["Faults", "LocalHub"]
