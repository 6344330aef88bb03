"""The kernel set of CPUs with vector instructions."""

from mvlm.models.ops.signatures import (
    AppendSignature,
    AttentionSignature,
    CachedAttentionSignature,
    LinearSignature,
    QuantizedLinearSignature,
    QuantizeRowsSignature,
    RowwiseSignature,
)
from mvlm.schedules.cpu import LAYOUT, NEEDS
from mvlm.schedules.cpu.attention import bidirectional_attention
from mvlm.schedules.cpu.cached_attention import cached_attention
from mvlm.schedules.cpu.dynamic_parallel import schedule_dynamically
from mvlm.schedules.cpu.float_linear import float_gemm, float_gemv
from mvlm.schedules.cpu.kv_append import append_to_cache
from mvlm.schedules.cpu.packed_linear import packed_linear
from mvlm.schedules.cpu.panel_gemm import panel_gemm
from mvlm.schedules.cpu.panel_gemv import panel_gemv
from mvlm.schedules.cpu.rowwise import quantize_rows, rowwise
from mvlm.schedules.default import default_schedule
from mvlm.schedules.kernel_set import KernelSet

KERNELS = KernelSet(
    layout=LAYOUT,
    needs=NEEDS,
    builders={
        LinearSignature: (float_gemv, float_gemm, packed_linear),
        QuantizedLinearSignature: (panel_gemv, panel_gemm),
        QuantizeRowsSignature: (quantize_rows,),
        RowwiseSignature: (rowwise,),
        AppendSignature: (append_to_cache,),
        CachedAttentionSignature: (cached_attention,),
        AttentionSignature: (bidirectional_attention,),
    },
    rules=(default_schedule,),
    postproc=schedule_dynamically,
)
