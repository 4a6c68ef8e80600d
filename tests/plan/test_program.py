"""Reading compiled programs: loops, FLOPs, bytes and collectives, against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mufun_jax.plan.hlo import HloProgram, Shape, parse_hlo
from mufun_jax.plan.loops import readable, runs
from mufun_jax.plan.program import read_program


def entry(*lines: str) -> str:
    """A program of one computation."""
    return "HloModule test\n\nENTRY %main (p: f32[]) -> f32[] {\n" + "\n".join(f"  {line}" for line in lines) + "\n}\n"


def test_sizes_of_arrays():
    assert Shape("bf16", (3, 5)).nbytes == 30
    assert Shape("f8e4m3fn", (3, 5)).nbytes == 15
    assert Shape("s4", (3,)).nbytes == 2
    assert Shape("pred", ()).nbytes == 1


def test_an_instruction_has_shapes_operands_and_attributes():
    program = parse_hlo(
        entry(
            "%p = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)",
            "%c = s32[]{:T(128)} constant(-3)",
            "ROOT %t = (bf16[8,4]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/s32[]{:S(2)}) fusion(%p, /*index=1*/%c), "
            'kind=kLoop, calls=%f, metadata={op_name="jit(f)/a(b)/c" stack_frame_id=1}',
        )
    )
    fusion = program.entry.root
    assert fusion.opcode == "fusion" and fusion.operands == ("p", "c")
    assert fusion.shapes == (Shape("bf16", (8, 4), 1), Shape("s32", (), 2))
    assert fusion.called("calls") == "f" and fusion.op_name == "jit(f)/a(b)/c"
    assert program.entry.instructions["c"].argument == "-3"


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        parse_hlo("HloModule empty\n")


@pytest.mark.parametrize(
    ("op_name", "name"),
    [
        ("jit(train_step)/jvp(MuFunModel)/MuFunModel.encode_audio/encoder/while", "encoder"),
        ("jit(train_step)/transpose(jvp(MuFunModel))/decoder/while/body/closed_call/checkpoint", "decoder, backward"),
        ("jit(f)/decoder.logits/...d,vd->...v/dot_general", "logits/dot_general"),
        ("jit(f)/while", "jit(f)"),
        ("", "a loop"),
    ],
)
def test_names_of_loops(op_name, name):
    assert readable(op_name) == name


def turns(hlo: HloProgram) -> list[tuple[int, bool]]:
    return [(run.times, run.counted) for run in runs(hlo) if run.loop is not None]


def compiled_text(function, *shapes) -> str:
    return text_of(jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)))


def text_of(lowered) -> str:
    text = lowered.compile().as_text()
    assert text is not None
    return text


def test_nested_loops_multiply():
    def inner(x, w):
        return jnp.tanh(x @ w), None

    def outer(x, ws):
        return jax.lax.scan(inner, x, ws)[0], None

    text = compiled_text(lambda x, ws: jax.lax.scan(outer, x, ws)[0], (8, 16), (5, 3, 16, 16))
    assert sorted(turns(parse_hlo(text))) == [(5, True), (15, True)]
    assert read_program(text, 1).flops == 15 * 2 * 8 * 16 * 16


LOOP = """HloModule loop

%body (b: (s32[], f32[4])) -> (s32[], f32[4]) {{
  %b = (s32[], f32[4]) parameter(0)
  %i = s32[] get-tuple-element(%b), index=0
  %step = s32[] constant({step})
  %next = s32[] {moved}(%i, %step)
  %x = f32[4]{{0}} get-tuple-element(%b), index=1
  ROOT %t = (s32[], f32[4]) tuple(%next, %x)
}}

%condition (c: (s32[], f32[4])) -> pred[] {{
  %c = (s32[], f32[4]) parameter(0)
  %j = s32[] get-tuple-element(%c), index=0
  %bound = s32[] constant({bound})
  ROOT %less = pred[] compare({compared}), direction={direction}
}}

ENTRY %main (p: f32[4]) -> f32[4] {{
  %p = f32[4]{{0}} parameter(0)
  %start = s32[] constant({start})
  %carried = (s32[], f32[4]) tuple(%start, %p)
  %w = (s32[], f32[4]) while(%carried), condition=%condition, body=%body
  ROOT %r = f32[4]{{0}} get-tuple-element(%w), index=1
}}
"""


def loop(start=0, bound=7, step=1, compared="%j, %bound", direction="LT", moved="add") -> str:
    return LOOP.format(start=start, bound=bound, step=step, compared=compared, direction=direction, moved=moved)


def test_a_loop_may_count_down_by_subtracting():
    assert turns(parse_hlo(loop(start=9, bound=0, step=3, direction="GT", moved="subtract"))) == [(3, True)]


@pytest.mark.parametrize(
    ("start", "bound", "step", "compared", "direction", "expected"),
    [
        (0, 7, 1, "%j, %bound", "LT", 7),
        (1, 8, 2, "%j, %bound", "LT", 4),
        (0, 6, 3, "%j, %bound", "LE", 3),
        (9, 0, -1, "%j, %bound", "GT", 9),
        (9, 0, -1, "%j, %bound", "GE", 10),
        (0, 7, 1, "%bound, %j", "GT", 7),
        (0, 5, 1, "%j, %bound", "NE", 5),
    ],
)
def test_trip_counts_from_the_condition(start, bound, step, compared, direction, expected):
    assert turns(parse_hlo(loop(start, bound, step, compared, direction))) == [(expected, True)]


def test_a_loop_whose_end_depends_on_data_is_said_to():
    text = loop().replace("%start = s32[] constant(0)", "%start = s32[] convert(%p)")
    assert turns(parse_hlo(text)) == [(1, False)]


def test_convolutions_count_no_padding():
    text = compiled_text(
        lambda x, k: jax.lax.conv_general_dilated(x, k, (2,), [(1, 1)], dimension_numbers=("NWC", "WIO", "NWC")),
        (2, 10, 3),
        (3, 3, 7),
    )
    # 5 outputs; taps at -1 0 1, 1 2 3, …, 7 8 9: one of 15 is padding.
    assert read_program(text, 1).flops == 2 * 14 * 2 * 3 * 7


def test_batched_products_that_the_tpu_compiler_writes_as_convolutions():
    text = entry(
        "%a = bf16[14,300,8] parameter(0)",
        "%b = bf16[14,8,5] parameter(1)",
        "ROOT %c = f32[14,300,5] convolution(%a, %b), window={size=14 stride=13 pad=0_0 lhs_dilate=14}, "
        "dim_labels=0bf_0io->0bf",
    )
    # Batch as a window of 14 over an input dilated by 14, read every 13: each output meets its own element only.
    assert read_program(text, 1).flops == 2 * 14 * 300 * 8 * 5


def test_bytes_leave_out_fast_memory_and_what_is_only_sliced():
    text = (
        "HloModule bytes\n\n%fused (a: f32[100,8], b: s32[], c: f32[8], d: f32[50,8]) -> (f32[1,8], f32[50,8]) {\n"
        "  %a = f32[100,8]{1,0} parameter(0)\n"
        "  %b = s32[] parameter(1)\n"
        "  %c = f32[8]{0:S(1)} parameter(2)\n"
        "  %d = f32[50,8]{1,0} parameter(3)\n"
        "  %s = f32[1,8]{1,0} dynamic-slice(%a, %b, %b), dynamic_slice_sizes={1,8}\n"
        "  %e = f32[1,8]{1,0} bitcast(%c)\n"
        "  %f = f32[1,8]{1,0} add(%s, %e)\n"
        "  %u = f32[50,8]{1,0} dynamic-update-slice(%d, %f, %b, %b)\n"
        "  ROOT %t = (f32[1,8]{1,0}, f32[50,8]{1,0}) tuple(%f, %u)\n}\n\n"
    ) + entry(
        "%p = f32[100,8]{1,0} parameter(0)",
        "%i = s32[]{:S(2)} parameter(1)",
        "%q = f32[8]{0:S(1)} parameter(2)",
        "%r = f32[50,8]{1,0} parameter(3)",
        "ROOT %z = (f32[1,8]{1,0}, f32[50,8]{1,0}) fusion(%p, %i, %q, %r), kind=kLoop, calls=%fused",
    ).split("\n\n", 1)[1]
    # Read: one slice of a (32); the index and c are in faster memory. Written: f (32) and the updated slice of d (32).
    assert read_program(text, 1).hbm_bytes == 32 + 32 + 32


def test_a_slice_in_a_fusion_inside_another_is_all_that_is_read():
    text = (
        "HloModule nested\n\n%inner (a: f32[100,8], b: s32[]) -> f32[1,8] {\n"
        "  %a = f32[100,8]{1,0} parameter(0)\n"
        "  %b = s32[] parameter(1)\n"
        "  ROOT %s = f32[1,8]{1,0} dynamic-slice(%a, %b, %b), dynamic_slice_sizes={1,8}\n}\n\n"
        "%outer (a: f32[100,8], b: s32[]) -> f32[1,8] {\n"
        "  %a = f32[100,8]{1,0} parameter(0)\n"
        "  %b = s32[] parameter(1)\n"
        "  %f = f32[1,8]{1,0} fusion(%a, %b), kind=kLoop, calls=%inner\n"
        "  ROOT %n = f32[1,8]{1,0} negate(%f)\n}\n\n"
    ) + entry(
        "%p = f32[100,8]{1,0} parameter(0)",
        "%i = s32[]{:S(2)} parameter(1)",
        "ROOT %z = f32[1,8]{1,0} fusion(%p, %i), kind=kLoop, calls=%outer",
    ).split("\n\n", 1)[1]
    assert read_program(text, 1).hbm_bytes == 32 + 32  # the slice is read, and its negative written


def test_bytes_of_what_stays_in_fast_memory_are_not_counted():
    text = entry(
        "%p = f32[100]{0} parameter(0)",
        "%n = f32[100]{0:S(1)} negate(%p)",
        "%m = f32[100]{0:S(1)} negate(%n)",
        "%s = (f32[100]{0:S(1)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%p)",
        "%d = f32[100]{0:S(1)} copy-done(%s)",
        "ROOT %a = f32[100]{0} add(%m, %d)",
    )
    assert read_program(text, 1).hbm_bytes == 400 + 0 + 400 + 400  # n reads, m does neither, s reads, a writes


def test_bytes_to_the_host_and_back():
    text = entry(
        "%p = f32[100]{0} parameter(0)",
        "%s = (f32[100]{0:S(5)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%p)",
        "ROOT %d = f32[100]{0:S(5)} copy-done(%s)",
    )
    ((work,),) = [region.work for region in read_program(text, 1).regions]
    assert (work.host_bytes, work.hbm_bytes, work.transfer) == (400, 400, True)


GROUPS = [
    ("{{0,1,2,3},{4,5,6,7}}", (0, 1, 2, 3)),
    ("[2,4]<=[8]", (0, 1, 2, 3)),
    ("[4,2]<=[2,4]T(1,0)", (0, 4)),
    ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", (0, 1, 2, 3)),
    ("mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", (0, 4)),
    ("mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", tuple(range(8))),
    ("mesh['axis_0'=2,'axis_1'=4] {'axis_1':(2)2}", (0, 1)),
    ("mesh['axis_0'=2,'axis_1'=4] {'axis_1':(1)2}", (0, 2)),
    ("mesh['axis_0'=2,'axis_1'=1,'axis_2'=4], device_ids=([4,2]T(1,0)) {'axis_0'}", (0, 1)),
    ("mesh['axis_0'=2,'axis_1'=1,'axis_2'=4], device_ids=([4,2]T(1,0)) {'axis_2'}", (0, 2, 4, 6)),
    ("mesh['axis_0'=2,'axis_1'=4], device_ids=(0,3,1,2,4,7,5,6) {'axis_1'}", (0, 3, 1, 2)),
    ("{}", tuple(range(8))),
]


@pytest.mark.parametrize(("groups", "expected"), GROUPS)
def test_groups_of_devices(groups, expected):
    text = entry(
        "%p = f32[16]{0} parameter(0)",
        f"ROOT %r = f32[16]{{0}} all-reduce(%p), channel_id=1, replica_groups={groups}, use_global_device_ids=true, "
        "to_apply=%add",
    )
    ((_, collective),) = read_program(text, 8).collectives()
    assert collective.group == expected


def test_bytes_of_collectives():
    groups = "replica_groups={{0,1,2,3}}"
    text = entry(
        "%p = f32[16]{0} parameter(0)",
        f"%g = f32[64]{{0}} all-gather(%p), channel_id=1, {groups}, dimensions={{0}}",
        f"%r = f32[16]{{0}} all-reduce(%p), channel_id=2, {groups}, to_apply=%add",
        f"%s = f32[4]{{0}} reduce-scatter(%p), channel_id=3, {groups}, dimensions={{0}}, to_apply=%add",
        f"%a = f32[16]{{0}} all-to-all(%p), channel_id=4, {groups}, dimensions={{0}}",
        "%cs = (f32[16]{0}, f32[16]{0}, u32[], u32[]) collective-permute-start(%p), channel_id=5, "
        "source_target_pairs={{0,1},{1,2},{2,3},{3,0}}",
        "%cd = f32[16]{0} collective-permute-done(%cs)",
        f"%gs = (f32[16]{{0}}, f32[64]{{0}}) all-gather-start(%p), channel_id=6, {groups}, dimensions={{0}}",
        "ROOT %gd = f32[64]{0} all-gather-done(%gs)",
    )
    assert read_program(text, 4).collective_bytes() == {
        "all-gather": 2 * 48 * 4,
        "all-reduce": 2 * 12 * 4,
        "reduce-scatter": 12 * 4,
        "all-to-all": 12 * 4,
        "collective-permute": 16 * 4,
    }
    assert [each.asynchronous for _, each in read_program(text, 4).collectives()] == [False] * 4 + [True] * 2


FUSED = """HloModule fused

%all-reduce-scatter.1 (i: f32[16]) -> f32[4] {
  %i = f32[16]{0} parameter(0)
  %r = f32[16]{0} all-reduce(%i), channel_id=7, replica_groups={{0,1,2,3}}, to_apply=%add
  %id = u32[] partition-id()
  ROOT %s = f32[4]{0} dynamic-slice(%r, %id), dynamic_slice_sizes={4}
}

%start (a: f32[16]) -> (f32[16], f32[64]) {
  %a = f32[16]{0} parameter(0)
  %g = f32[64]{0} all-gather(%a), channel_id=8, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %c = (f32[16]{0}, f32[64]{0}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%between (b1: f32[16], d1: f32[64], m: f32[64]) -> f32[64] {
  %b1 = f32[16]{0} parameter(0)
  %d1 = f32[64]{0} parameter(1)
  %m = f32[64]{0} parameter(2)
  %h1 = f32[64]{0} all-gather(%b1), channel_id=8, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %e1 = f32[64]{0} add(%m, %m)
}

%body (t: (s32[], f32[16], f32[64])) -> (s32[], f32[16], f32[64]) {
  %t = (s32[], f32[16]{0}, f32[64]{0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %o = f32[16]{0} get-tuple-element(%t), index=1
  %n = f32[64]{0} get-tuple-element(%t), index=2
  %k = f32[64]{0} fusion(%o, %n, %n), kind=kOutput, calls=%between
  ROOT %u = (s32[], f32[16]{0}, f32[64]{0}) tuple(%next, %o, %k)
}

%condition (c: (s32[], f32[16], f32[64])) -> pred[] {
  %c1 = (s32[], f32[16]{0}, f32[64]{0}) parameter(0)
  %j = s32[] get-tuple-element(%c1), index=0
  %bound = s32[] constant(5)
  ROOT %less = pred[] compare(%j, %bound), direction=LT
}

%done (b: f32[16], d: f32[64]) -> f32[64] {
  %b = f32[16]{0} parameter(0)
  %d = f32[64]{0} parameter(1)
  %h = f32[64]{0} all-gather(%b), channel_id=8, replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %e = f32[64]{0} custom-call(%b, %d, %h), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (p: f32[16]) -> f32[64] {
  %p = f32[16]{0} parameter(0)
  %x = f32[4]{0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
  %y = (f32[16]{0}, f32[64]{0}) fusion(%p), kind=kCustom, calls=%start
  %z = f32[16]{0} get-tuple-element(%y), index=0
  %w = f32[64]{0} get-tuple-element(%y), index=1
  %zero = s32[] constant(0)
  %all = (s32[], f32[16]{0}, f32[64]{0}) tuple(%zero, %z, %w)
  %loop = (s32[], f32[16]{0}, f32[64]{0}) while(%all), condition=%condition, body=%body
  %last = f32[64]{0} get-tuple-element(%loop), index=2
  ROOT %v = f32[64]{0} fusion(%z, %last), kind=kCustom, calls=%done
}
"""


def test_fused_collectives_are_counted_once_and_a_sliced_all_reduce_is_a_reduce_scatter():
    program = read_program(FUSED, 4)
    assert [region.times for region in program.regions] == [1, 5]  # the gather goes on in the loop's five turns
    found = [(each.kind, each.nbytes, each.asynchronous) for _, each in program.collectives()]
    assert found == [("reduce-scatter", 64, False), ("all-gather", 256, True)]


def test_a_sharded_scan_on_two_devices():
    mesh = Mesh(jax.devices(), ("x",))
    weights = jax.ShapeDtypeStruct((6, 32, 32), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, "x")))
    rows = jax.ShapeDtypeStruct((4, 32), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("x")))

    def forward(x, ws):
        def layer(x, w):
            whole = jax.lax.with_sharding_constraint(w, NamedSharding(mesh, PartitionSpec()))
            return jnp.tanh(x @ whole), None

        return jax.lax.scan(layer, x, ws)[0]

    program = read_program(text_of(jax.jit(forward).lower(rows, weights)), 2)
    assert program.flops == 6 * 2 * 2 * 32 * 32  # two rows a device
    sent = program.collective_bytes()
    assert sent.pop("all-gather") == 6 * 32 * 32 * 4 / 2
    assert set(sent.values()) == {0.0}
