// What products and attention read on the CPU while a scope of this lives on the calling thread:
// fp32 numbers rounded to bf16 or fp16 first, as on a device that was opened for it
// (open_device.h).
//
//   const RoundingScope rounding(fastest_bf16());
//   attention_forward(ctx, ...);
//
//   product_nt, nn, tn   (and the loss by them) both operands, as by to_bf16; sums in the order of
//                        the arithmetic (product_bf16.h). unsupported: a packed image, what the
//                        path in use does not have, product_batched and product_tn_shards
//   attention_forward,   q, k, v and dout once, weights and their slopes before they meet rows;
//   attention_backward   scores, maxima and all sums are those of attention.h, whatever the
//                        arithmetic (decision 0024)
//
//   in fp16              products read both operands as by rounded_to_fp16 (fp16.h), and sum as
//                        those of fp32 numbers do; attention reads what it is given
//
// All else is fp32, and so are outputs. It says nothing to ops on a device.
//
// Threads: of the calling thread, like its floating-point mode; scopes nest.
#pragma once

#include <optional>
#include <utility>
#include <variant>

namespace tutti::kernels {

// How products of bf16 numbers are summed: product_bf16.h has the orders, each a numerics profile
// of its own.
enum class Bf16Arithmetic { widened, native, tiles };
// Products of fp16 numbers have one order, that of product.h.
struct Fp16Arithmetic {
  bool operator==(const Fp16Arithmetic&) const = default;
};
using Rounding = std::variant<Bf16Arithmetic, Fp16Arithmetic>;

class RoundingScope {
 public:
  // None: nothing is rounded.
  explicit RoundingScope(std::optional<Rounding> arithmetic)
      : before_(std::exchange(in_use_, arithmetic)) {}
  RoundingScope(const RoundingScope&) = delete;
  RoundingScope& operator=(const RoundingScope&) = delete;
  ~RoundingScope() { in_use_ = before_; }

  // Of the calling thread.
  static std::optional<Rounding> in_use() { return in_use_; }
  static bool is_to_bf16() { return in_use_ && std::holds_alternative<Bf16Arithmetic>(*in_use_); }

 private:
  inline static thread_local std::optional<Rounding> in_use_;
  std::optional<Rounding> before_;
};

}  // namespace tutti::kernels
