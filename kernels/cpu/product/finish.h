// The fused ends of a product: what happens to a band of outputs once its chains are finished,
// while they are in cache.
#pragma once

#include <algorithm>
#include <optional>

#include "kernels/cpu/row_split.h"
#include "kernels/ops/product.h"
#include "kernels/ops/silu_gate.h"
#include "kernels/tensor/not_on_device.h"

namespace tutti::kernels {

// In the order in which they follow the chains (product.h).
struct Ends {
  const float* bias = nullptr;
  ConstMatrix residual;
  std::optional<Activation> activation;
  ConstMatrix gate;
  BasicMatrix<Bf16> narrow;

  explicit operator bool() const { return bias != nullptr || residual || activation || narrow; }
};

// Of the arguments of any product.
template <class Args>
Ends ends_of(const Args& args) {
  Ends ends{args.bias, args.residual, args.activation, args.gate, {}};
  if constexpr (requires { args.narrow; }) ends.narrow = args.narrow;
  return ends;
}

// Whether output and ends of the arguments are those of a product of [rows, columns].
template <class Args>
bool outputs_fit(const Args& args, Index rows, Index columns) {
  const Ends ends = ends_of(args);
  const auto fits = [&](const auto& x) {
    return x.rows == rows && x.columns == columns && x.stride >= columns;
  };
  const bool narrow = ends.narrow || ends.narrow.columns > 0;
  // One of that shape and without data stands for no output, as long as there is nothing to write.
  const bool nowhere = narrow && !ends.narrow && rows > 0 && columns > 0;
  const bool output =
      narrow ? fits(ends.narrow) && !nowhere && !args.output && args.start == ChainStart::zero
             : fits(args.output);
  return output && (!ends.residual || fits(ends.residual)) &&
         (!ends.gate || (ends.activation && fits(ends.gate)));
}

struct OutputBand {
  Index row = 0;
  Index rows = 0;
  Index column = 0;
  Index columns = 0;
};

void finish_band(const Ends& ends, const Matrix& output, const OutputBand& band);

inline void finish(const Ends& ends, const Matrix& output, const OutputBand& band) {
  if (ends) finish_band(ends, output, band);
}

// The whole output where no chain has a k: its start, then the ends. `output` may be memory of the
// caller's in place of the arguments'.
template <class Args>
void finish_empty(const Args& args, const Matrix& output) {
  for (Index r = 0; args.start == ChainStart::zero && r < output.rows; ++r) {
    std::fill_n(output.row(r), output.columns, 0.0F);
  }
  finish(ends_of(args), output, {0, output.rows, 0, output.columns});
}

// What a device does not fuse with a quantised product follows there as its own op; `enqueue` takes
// the arguments without it.
// Errors: unsupported, besides those of the device.
template <class Args, class Enqueue>
Result<> end_on_device(const OpContext& ctx, const Args& args, const Enqueue& enqueue) {
  const Ends ends = ends_of(args);
  if (ends.narrow) {
    return not_on_device("product_quantised, product_quantised_grouped: bf16 output");
  }
  if (!ends.activation) return enqueue(args);
  Args plain = args;
  plain.activation.reset();
  plain.gate = {};
  if (auto done = enqueue(plain); !done) return done;
  const Activation kind = *ends.activation;
  if (!ends.gate)
    return activation_forward(ctx, {.kind = kind, .x = args.output, .y = args.output});
  if (kind == Activation::silu) {
    return silu_gate_forward(ctx, {.gate = ends.gate, .up = args.output, .y = args.output});
  }
  return gate_forward(ctx, {.kind = kind, .gate = ends.gate, .up = args.output, .y = args.output});
}

}  // namespace tutti::kernels
