"""Finds which share of a model a provider really runs. ONNX Runtime silently runs other operators on the CPU, and a timing
includes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

RECORDED = "session.record_ep_graph_assignment_info"
"""The session setting that records which provider took which node."""

WEIGHTS = frozenset(
    {"MatMul", "MatMulNBits", "MatMulBnb4", "MatMulInteger", "MatMulIntegerToFloat", "MatMulFpQ4", "DynamicQuantizeMatMul",
     "QLinearMatMul", "Gemm", "FusedGemm", "FusedMatMul", "GemmFastGelu", "GemmFloat8", "QGemm", "Conv", "FusedConv",
     "DequantizeLinear", "NhwcConv", "QMoE", "MoE", "GatherBlockQuantized"}
)  # fmt: skip
"""Operators that hold weights."""
ATTENTION = frozenset(
    {"GroupQueryAttention", "MultiHeadAttention", "Attention", "QAttention", "DecoderMaskedMultiHeadAttention",
     "DecoderMaskedSelfAttention", "PackedAttention", "PackedMultiHeadAttention", "PagedAttention", "SparseAttention",
     "LinearAttention", "GatedDeltaNet", "CausalConvWithState", "FlexAttention", "Scan"}
)  # fmt: skip
"""Operators that compute attention, or its replacement in recurrent layers."""


@dataclass(frozen=True)
class Share:
    """The nodes with weights and those of attention: how many a provider took, and which it did not, by operator."""

    taken: int
    left: dict[str, int]

    def plain(self) -> dict[str, Any]:
        """Return `provider_share` (0 to 1; None where there is no such node) and `left_to_cpu`, operator to number."""
        total = self.taken + sum(self.left.values())
        return {"provider_share": self.taken / total if total else None, "left_to_cpu": self.left}


def share_of(session: Any, runtime_name: str) -> Share:
    """Return the share of a session, opened with the setting `RECORDED`, that the provider `runtime_name` took."""
    taken, left = 0, Counter[str]()
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            if node.op_type not in WEIGHTS | ATTENTION:
                continue
            if part.ep_name == runtime_name:
                taken += 1
            else:
                left[node.op_type] += 1
    return Share(taken, dict(sorted(left.items())))
