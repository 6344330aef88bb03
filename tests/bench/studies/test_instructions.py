"""The loop that decodes a token, in LLVM's assembly for several CPUs: how good it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvlm.bench.studies import instructions, roofline, vision_roofline
from mvlm.bench.studies.assembly import computations, innermost_loop
from mvlm.bench.studies.cross_compile import _kind
from mvlm.bench.studies.instructions import Loop, all_loops

DOCUMENT = Path(__file__).parents[3] / instructions.DOCUMENT

# Instructions for a byte of weights, what LLVM writes now and a little room for its moods; and
# spills. x86 has sums of four panels, which LLVM keeps in memory: there are too many of AVX2's, and
# prefetching is a side effect of the loop.
MOST = {
    ("Armv8.2 dot product", "q4a8"): (0.61, 0),
    ("Armv8.2 dot product", "q3a8"): (0.94, 0),
    ("AVX2", "q4a8"): (0.45, 52),
    ("AVX2", "q3a8"): (0.68, 100),
    ("AVX-512 VNNI", "q4a8"): (0.19, 8),
    ("AVX-512 VNNI", "q3a8"): (0.26, 20),
    ("AVX-512 VNNI, VBMI", "q4a8"): (0.16, 8),
    ("AVX-512 VNNI, VBMI", "q3a8"): (0.24, 20),
}
SDOT = ("Armv8.2 dot product", "q4a8")

ARM = """
kernel:
	sub	sp, sp, #64
	add	x20, sp, #16
	mov	x9, x0
.LBB0_1:
	ldr	q9, [x1]
.LBB0_2:                                // =>  This Inner Loop
	ldp	q0, q1, [x9, #-32]              // 16-byte
	ld1r	{ v4.4s }, [x16]
	sdot	v8.4s, v0.16b, v4.4b[1]
	str	q8, [x20, #32]
	ldr	q2, [sp, #96]
	prfm	pldl1keep, [x9, #256]
	add	x9, x9, #32
	b.ne	.LBB0_2
	.p2align	2
	b.ne	.LBB0_1
	ret
"""
X86 = """
kernel:
	leaq	64(%rsp), %rax
	movq	8(%rsp), %rdx
.LBB0_1:                                # %loop
	vpandq	%zmm7, %zmm2, %zmm6
	vpdpbusd	-28(%rdi,%r10,8){1to16}, %zmm6, %zmm1
	vmovdqu	%ymm2, 32(%rax)
	vmovdqa64	(%rdx), %zmm5
	vpand	.LCPI4_0(%rip), %ymm1, %ymm3
	addq	$256, %r9
	cmpq	$4, (%r9)
	jne	.LBB0_1
"""


def flags(assembly: str, mnemonic: str, name: str) -> list[str]:
    """The mnemonics of a loop's instructions of which something holds."""
    return [each.mnemonic for each in innermost_loop(assembly, mnemonic) if getattr(each, name)]


def test_assembly_of_aarch64() -> None:
    assert len(innermost_loop(ARM, "sdot")) == 8
    assert flags(ARM, "sdot", "loads") == ["ldp", "ld1r", "ldr"]
    assert flags(ARM, "sdot", "stores") == ["str"]
    assert flags(ARM, "sdot", "is_on_stack") == ["str", "ldr"]
    assert flags(ARM, "sdot", "is_vector") == ["sdot"]


def test_assembly_of_x86() -> None:
    assert len(innermost_loop(X86, "vpdpbusd")) == 8
    assert flags(X86, "vpdpbusd", "loads") == ["vpdpbusd", "vmovdqa64", "vpand", "cmpq"]
    assert flags(X86, "vpdpbusd", "stores") == ["vmovdqu"]
    assert flags(X86, "vpdpbusd", "is_on_stack") == ["vmovdqu"]
    assert flags(X86, "vpdpbusd", "is_vector") == ["vpandq", "vpdpbusd", "vpand"]


KERNELS = """
__tvm_ffi_linear:
	cbz	x8, .LBB0_63
	ret
linear_compute_:
	ldr	x9, [x1, #24]
.LBB1_2:
	sdot	v8.4s, v0.16b, v4.4b[1]
.L__tvm_parallel_lambda.7:
	str	q8, [x20, #32]
	ret
embedding_compute_:
	fmul	v1.4s, v2.4s, v3.4s
__tvm_set_raised_6:
	ret
"""


def test_assembly_of_the_kernels_of_a_module() -> None:
    found = {name: [each.mnemonic for each in body] for name, body in computations(KERNELS).items()}
    assert found == {"linear": ["ldr", "sdot", "str", "ret"], "embedding": ["fmul"]}
    kinds = [_kind(each) for each in computations(KERNELS)["linear"]]
    assert kinds == ["loads", "products", "stores", "branches"]


RELOADED = """
kernel:
	leaq	64(%rsp), %rsi
	movq	%rsp, %rax
.LBB0_1:                                # %loop
	movq	72(%rsp), %rsi
	vpdpbusd	(%rsi,%r10,8){1to16}, %zmm6, %zmm1
	vmovdqu	%ymm2, 32(%rax)
	jne	.LBB0_1
"""


def test_a_pointer_that_the_loop_loads_is_no_address_on_the_stack() -> None:
    assert flags(RELOADED, "vpdpbusd", "is_on_stack") == ["movq", "vmovdqu"]


def test_assembly_without_the_loop() -> None:
    assert innermost_loop(ARM, "vpdpbusd") == ()


@pytest.fixture(scope="module")
def loops() -> dict[tuple[str, str], Loop]:
    return {(loop.name, loop.scheme): loop for loop in all_loops()}


def test_loops_are_those_of_all_cpus_and_schemes(loops: dict[tuple[str, str], Loop]) -> None:
    assert set(loops) == set(MOST)


@pytest.mark.parametrize("kind", MOST, ids="-".join)
def test_decode_loop_instructions(
    loops: dict[tuple[str, str], Loop], kind: tuple[str, str]
) -> None:
    loop = loops[kind]
    # Half of a panel's features or all of them, a group of 32.
    assert loop.products % (8 * 32) == 0 and loop.products > 0
    assert loop.weight_bytes == loop.products // 32 * {"q4a8": 17, "q3a8": 13}[kind[1]]
    per_byte, spills = MOST[kind]
    assert loop.per_byte <= per_byte
    assert kind[0] == "AVX2" or not any(each.is_on_stack for each in loop.body)
    assert loop.spills <= spills


@pytest.mark.parametrize("kind", MOST, ids="-".join)
def test_tables_of_levels_stay_in_registers(
    loops: dict[tuple[str, str], Loop], kind: tuple[str, str]
) -> None:
    """One lookup for each product, and none of its tables is loaded in the loop."""
    body = loops[kind].body
    lookups = [each for each in body if each.mnemonic in ("vpshufb", "vpermb", "tbl")]
    products = [each for each in body if each.mnemonic == loops[kind].mnemonic]
    # Armv8 converts the scales of four features by a `tbl` as well.
    assert len(products) <= len(lookups) <= len(products) * 9 / 8
    assert not any(each.loads for each in lookups)
    broadcasts = ("vbroadcasti128", "vpbroadcastq", "vbroadcasti32x4", "vbroadcasti64x4")
    assert not any(each.mnemonic in broadcasts for each in body)


def test_sdot_takes_activations_by_element(loops: dict[tuple[str, str], Loop]) -> None:
    products = [each.text for each in loops[SDOT].body if each.mnemonic == "sdot"]
    assert len(products) == loops[SDOT].products // 16
    assert all("4b[" in text for text in products)


def test_docs_instruction_counts_are_current(loops: dict[tuple[str, str], Loop]) -> None:
    """Write it again with `python -m mvlm.bench.studies.instructions --write`."""
    page = DOCUMENT.read_text(encoding="utf-8")
    assert instructions.table(list(loops.values())) in page
    assert roofline.table(instructions.KRYO, loops[SDOT].work) in page


def test_docs_vision_roofline_is_current() -> None:
    """Write it again with `python -m mvlm.bench.studies.vision_roofline --write`."""
    loops = [vision_roofline.compile_tower_loop(scheme) for scheme in ("q8a8", "q16a16")]
    assert vision_roofline.table(loops) in DOCUMENT.read_text(encoding="utf-8")
    # An iteration is a group of 32 for 16 features and four rows.
    assert [loop.products for loop in loops] == [32 * 16 * 4] * 2
    assert loops[0].seconds < loops[1].seconds


def test_vision_roofline_counts_the_products_of_an_image() -> None:
    assert vision_roofline.image_products() == pytest.approx(170.6e9, rel=1e-2)


# --- roofline ----------------------------------------------------------------------------------

WORK = roofline.LoopWork(instructions=100, vector=80, loads=20, weight_bytes=288)
X1, A78, A55 = instructions.KRYO.cpu.cores


def test_roofline_cycles_are_those_of_the_busiest_unit() -> None:
    assert roofline.cycles(A78, WORK) == 80 / 2
    assert roofline.cycles(X1, WORK) == max(80 / 4, 100 / 5)
    assert roofline.cycles(A55, WORK) == 80 + 20 / 0.5  # one waits for the other


def test_roofline_adds_up_threads() -> None:
    each = [288 / 20 * 2.84e9, 3 * 288 / 40 * 2.42e9]
    assert roofline.cores_bytes_s((X1, A78), WORK) == pytest.approx(sum(each))
    assert roofline.cores_bytes_s((A55,), WORK) == pytest.approx(4 * 288 / 120 * 1.8e9)


def test_roofline_bytes_per_token() -> None:
    """1.30 billion weights of 4.25 bits, without the embedding table, and 26 MB of cache."""
    config = roofline.find_published_model(roofline.MODEL).decoder
    weights = 24 * (4 * 2048 * 2048 + 3 * 2048 * 5632) + 32_000 * 2048
    assert roofline.bytes_per_token(config, 0) == weights * 4.25 / 8
    cache = roofline.bytes_per_token(config, 256) - weights * 4.25 / 8
    assert cache == 24 * 256 * 2 * 16 * (128 + 4)


def test_roofline_takes_the_lower_bound() -> None:
    cores, token = (X1, A78), 0.7165e9
    slow = roofline.LoopWork(instructions=1000, vector=1000, loads=20, weight_bytes=288)
    assert roofline.tokens_s(cores, WORK, 25.6e9) == pytest.approx(25.6e9 / token, rel=1e-3)
    computed = roofline.cores_bytes_s(cores, slow)
    assert roofline.tokens_s(cores, slow, 25.6e9) == pytest.approx(computed / token, rel=1e-3)
