// What each op has cost this process so far: calls, seconds, floating-point operations, bytes.
//
//   const OpTimer timer(Op::add_into, {.bytes = 12 * n});     in the op, once it computes
//   for (const OpCount& count : op_counts()) ...              anywhere: metrics, profiles
//
// Seconds are those of the clock on the wall, of an op with all that it calls: a loss counts its
// products too, which count themselves; so does its work. On a device nothing is kept: an op is
// only enqueued there.
//
// Work is that of the op's formula on its operands, whatever a kernel computes or reads twice. A
// fused multiplication and addition is two operations; a division, a root, an exponential, a sine,
// an activation or its slope is one; comparisons, conversions and integers are none, and what is
// optional (a bias, a residual) is left out. Bytes are those of operands and results, each once.
//
// A call costs two readings of the time-stamp counter and four relaxed additions, some 30 ns (the
// case "op counters" of ops/bench/kernels).
//
// Threads: any. Counts of one op are each exact; together they may be one call apart.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace tutti::kernels {

// One row each here and in op_counters.cc, by name; the lint finds an op that has none
// (ops/lint/op_catalogue.py). A product that another op computes for it is counted as that one's:
// narrow images as product_quantised, and so codes of weights without an integer kernel.
enum class Op {
  activation_backward,
  activation_forward,
  adafactor_update,
  adamw8_update,
  adamw_update,
  add_into,
  add_pieces,
  attention_backward,
  attention_cached,
  attention_forward,
  choose_tokens,
  clear,
  column_sums,
  dropout,
  embedding_backward,
  embedding_forward,
  fill_normal,
  fill_uniform,
  from_bf16,
  gate_backward,
  gate_forward,
  hash_blocks,
  kv_write,
  layer_norm_backward,
  layer_norm_forward,
  linear_cross_entropy,
  lion_update,
  log_softmax,
  muon_update,
  pack_bf16_weight,
  pack_rows,
  pack_weight,
  product_batched,
  product_bf16_batched,
  product_bf16_nn,
  product_bf16_nt,
  product_bf16_tn,
  product_int8,
  product_nn,
  product_nt,
  product_quantised,
  product_quantised_grouped,
  product_quantised_nn,
  product_tn,
  product_tn_shards,
  quantise_weight,
  rms_norm_backward,
  rms_norm_forward,
  rotary_angles,
  rotary_apply,
  schedule_free_average,
  schedule_free_update,
  sgd_update,
  silu_gate_backward,
  silu_gate_forward,
  softmax_backward,
  softmax_forward,
  square_sums,
  to_bf16,
  to_bf16_stochastic,
  to_int8_rows,
  tree_sum,
};
inline constexpr std::size_t kOpCount = static_cast<std::size_t>(Op::tree_sum) + 1;

std::string_view to_string(Op op);

struct OpWork {
  std::int64_t flop = 0;
  std::int64_t bytes = 0;
};

class OpTimer {
 public:
  explicit OpTimer(Op op, const OpWork& work = {});
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;
  ~OpTimer();

 private:
  Op op_;
  OpWork work_;
  std::uint64_t begin_;
};

struct OpCount {
  std::string_view name;
  std::int64_t calls = 0;
  double seconds = 0.0;
  std::int64_t flop = 0;
  std::int64_t bytes = 0;
};
// Those that were called, by name.
std::vector<OpCount> op_counts();

}  // namespace tutti::kernels
