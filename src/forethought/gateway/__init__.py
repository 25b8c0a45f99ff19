"""A plug-in of vLLM's own server: predicts, prices and sets each request's budget inside it. See docs/serving.md.

vLLM imports nothing of it unless VLLM_PLUGINS names `forethought` or --worker-extension-cls names `HiddenStates`.
"""

from .hosts.vllm.extension import HiddenStates

__all__ = ["HiddenStates"]
