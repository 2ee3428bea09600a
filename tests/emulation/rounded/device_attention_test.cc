// Attention, and what turns its rows, with rows as products read them (ops/elementwise/rounded.h):
// the bits of fp32 rows, rounded within it or behind it.
#include "kernels/ops/attention.h"

#include <catch2/catch.hpp>

#include <utility>

#include "kernels/ops/rotary.h"
#include "tests/emulation/rounded/rounded_room.h"

namespace tutti::kernels::cuda {

TEST_CASE("device ops: rotary leaves rounded rows with the bits of rounding behind them") {
  constexpr Index kRows = 5;
  constexpr Index kColumns = 72;
  constexpr Index kHead = 24;  // three of them
  const Floats x = odd_numbers(kRows * kColumns, 1);
  const Floats cosines = draw(kRows * kHead / 2, 2);
  const Floats sines = draw(kRows * kHead / 2, 3);
  for (const Inputs inputs : kHalfInputs) {
    const auto on = open_device_for(inputs);
    for (const auto direction :
         {RotaryApply::Direction::forward, RotaryApply::Direction::backward}) {
      Floats turned = x;
      RotaryApply args{.x = Matrix(turned.data(), kRows, kColumns),
                       .head_width = kHead,
                       .cosine = {cosines.data(), kRows, kHead / 2},
                       .sine = {sines.data(), kRows, kHead / 2},
                       .direction = direction};
      REQUIRE(on->enqueue(args));
      REQUIRE(on->synchronize());
      const Halves expected =
          rounded_behind(*on, ConstMatrix(turned.data(), kRows, kColumns), inputs);
      in_each_order([&] {
        Floats read = x;
        RoundedRoom room(kRows, kColumns);
        args.x.data = read.data();
        args.rounded = room.matrix;
        REQUIRE(on->enqueue(args));
        REQUIRE(on->synchronize());
        CHECK(room.numbers == expected);
        CHECK(bits_of(read) == bits_of(x));
      });
    }
  }
}

namespace {

struct Heads {
  Index heads, kv_heads, width;
};

// Attention of two samples, 70 and 9 tokens.
struct AttentionRun {
  explicit AttentionRun(const Heads& of)
      : shape{.heads = of.heads, .kv_heads = of.kv_heads, .head_width = of.width, .scale = 0.3F},
        columns(of.heads * of.width),
        kv_columns(of.kv_heads * of.width),
        q(draw(kTokens * columns, 1)),
        k(draw(kTokens * kv_columns, 2)),
        v(draw(kTokens * kv_columns, 3)),
        dout(draw(kTokens * columns, 4)),
        out(q.size()),
        lse(static_cast<std::size_t>(kTokens * of.heads)),
        dq(q.size()),
        dk(k.size()),
        dv(v.size()) {}

  ConstMatrix wide(const Floats& of) const {
    return {of.data(), kTokens, static_cast<Index>(of.size()) / kTokens};
  }
  Matrix wide(Floats& of) const {
    return {of.data(), kTokens, static_cast<Index>(of.size()) / kTokens};
  }
  AttentionForward forward() {
    return {.shape = shape,
            .q = wide(std::as_const(q)),
            .k = wide(std::as_const(k)),
            .v = wide(std::as_const(v)),
            .sample_offsets = offsets,
            .out = wide(out),
            .lse = lse.data()};
  }
  AttentionBackward backward() {
    return {.shape = shape,
            .q = wide(std::as_const(q)),
            .k = wide(std::as_const(k)),
            .v = wide(std::as_const(v)),
            .out = wide(std::as_const(out)),
            .dout = wide(std::as_const(dout)),
            .lse = lse.data(),
            .sample_offsets = offsets,
            .dq = wide(dq),
            .dk = wide(dk),
            .dv = wide(dv)};
  }

  static constexpr Index kTokens = 79;
  AttentionShape shape;
  Index columns, kv_columns;
  std::vector<std::int32_t> offsets{0, 70, 79};
  Floats q, k, v, dout, out, lse, dq, dk, dv;
};

// Not to be read.
template <class Args>
void take_rounded(Args& args, RoundedRoom& q, RoundedRoom& k, RoundedRoom& v) {
  args.q.data = args.k.data = args.v.data = nullptr;
  args.q_rounded = q.matrix;
  args.k_rounded = k.matrix;
  args.v_rounded = v.matrix;
}

}  // namespace

TEST_CASE("device ops: attention reads and leaves rounded rows, with the same bits") {
  const auto on = open_device_for(Inputs::bf16);
  constexpr Index kTokens = AttentionRun::kTokens;
  for (const Heads& heads : {Heads{2, 1, 8}, Heads{3, 3, 64}, Heads{2, 2, 72}, Heads{2, 1, 128}}) {
    CAPTURE(heads.heads, heads.width);
    AttentionRun expected(heads);
    REQUIRE(on->enqueue(expected.forward()));
    REQUIRE(on->enqueue(expected.backward()));
    REQUIRE(on->synchronize());
    AttentionRun run(heads);
    RoundedRoom q(kTokens, run.columns);
    RoundedRoom k(kTokens, run.kv_columns);
    RoundedRoom v(kTokens, run.kv_columns);
    REQUIRE(on->round(run.wide(std::as_const(run.q)), q.matrix));
    REQUIRE(on->round(run.wide(std::as_const(run.k)), k.matrix));
    REQUIRE(on->round(run.wide(std::as_const(run.v)), v.matrix));
    const auto behind = [&](const Floats& numbers) {
      return rounded_behind(*on, run.wide(numbers), Inputs::bf16);
    };
    const auto check_rounded = [&](bool beside) {
      RoundedRoom out(kTokens, run.columns);
      AttentionForward forward = run.forward();
      take_rounded(forward, q, k, v);
      forward.out_rounded = out.matrix;
      if (!beside) forward.out = {};
      REQUIRE(on->enqueue(forward));
      REQUIRE(on->synchronize());
      CHECK(out.numbers == behind(expected.out));
      CHECK(bits_of(run.out) == bits_of(expected.out));
      CHECK(bits_of(run.lse) == bits_of(expected.lse));
      RoundedRoom dq(kTokens, run.columns);
      RoundedRoom dk(kTokens, run.kv_columns);
      RoundedRoom dv(kTokens, run.kv_columns);
      AttentionBackward backward = run.backward();
      take_rounded(backward, q, k, v);
      backward.dq_rounded = dq.matrix;
      backward.dk_rounded = dk.matrix;
      backward.dv_rounded = dv.matrix;
      if (!beside) backward.dq = backward.dk = backward.dv = {};
      REQUIRE(on->enqueue(backward));
      REQUIRE(on->synchronize());
      CHECK(dq.numbers == behind(expected.dq));
      CHECK(dk.numbers == behind(expected.dk));
      CHECK(dv.numbers == behind(expected.dv));
      CHECK(bits_of(run.dq) == bits_of(expected.dq));
      CHECK(bits_of(run.dk) == bits_of(expected.dk));
      CHECK(bits_of(run.dv) == bits_of(expected.dv));
    };
    in_each_order([&] {
      check_rounded(true);
      check_rounded(false);
    });
  }
}

TEST_CASE("device ops: attention that is not on tensor cores refuses rounded rows") {
  ThreadPool pool(1);
  const auto refuses = [&](kernels::Device* device, const Heads& heads, Index window) {
    AttentionRun run(heads);
    run.shape.window = window;
    RoundedRoom rows(AttentionRun::kTokens, run.columns);
    AttentionForward forward = run.forward();
    forward.out_rounded = rows.matrix;
    AttentionBackward backward = run.backward();
    backward.dq_rounded = rows.matrix;
    const OpContext ctx{&pool, device};
    const auto left = attention_forward(ctx, forward);
    const auto back = attention_backward(ctx, backward);
    return !left && left.error().code == ErrorCode::unsupported && !back &&
           back.error().code == ErrorCode::unsupported;
  };
  const auto coarse = open_device_for(Inputs::bf16);
  CHECK_FALSE(refuses(coarse.get(), {2, 2, 8}, 0));
  REQUIRE(coarse->synchronize());
  CHECK(refuses(coarse.get(), {2, 2, 8}, 4));
  CHECK(refuses(coarse.get(), {1, 1, 136}, 0));
  CHECK(refuses(open_device_for(Inputs::fp16).get(), {2, 2, 8}, 0));
  CHECK(refuses(nullptr, {2, 2, 8}, 0));
}

}  // namespace tutti::kernels::cuda
