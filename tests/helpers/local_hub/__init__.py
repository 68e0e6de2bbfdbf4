"""A Hub on the loopback device, for tests: it implements the HTTP API of huggingface.co for the real clients.

`LocalHub` is the server. Clients reach it through `HF_ENDPOINT`, which huggingface_hub reads when it is imported:
[`local_hub.client.run_client`] therefore runs them in a process of their own. `hub.faults` makes requests fail, and
`hub.log` records them. Uploads need `HF_HUB_DISABLE_XET=1`, because this Hub has no Xet storage; the clients then use
Git LFS.
"""

from .faults import Faults
from .server import LocalHub


__all__ = ["Faults", "LocalHub"]
