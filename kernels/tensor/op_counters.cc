#include "kernels/tensor/op_counters.h"

#include <x86intrin.h>

#include <array>
#include <atomic>
#include <chrono>

namespace tutti::kernels {

namespace {

constexpr std::array<std::string_view, kOpCount> kNames = {
    "activation_backward",
    "activation_forward",
    "adafactor_update",
    "adamw8_update",
    "adamw_update",
    "add_into",
    "add_pieces",
    "attention_backward",
    "attention_cached",
    "attention_forward",
    "choose_tokens",
    "clear",
    "column_sums",
    "dropout",
    "embedding_backward",
    "embedding_forward",
    "fill_normal",
    "fill_uniform",
    "from_bf16",
    "gate_backward",
    "gate_forward",
    "hash_blocks",
    "kv_write",
    "layer_norm_backward",
    "layer_norm_forward",
    "linear_cross_entropy",
    "lion_update",
    "log_softmax",
    "muon_update",
    "pack_bf16_weight",
    "pack_rows",
    "pack_weight",
    "product_batched",
    "product_bf16_batched",
    "product_bf16_nn",
    "product_bf16_nt",
    "product_bf16_tn",
    "product_int8",
    "product_nn",
    "product_nt",
    "product_quantised",
    "product_quantised_grouped",
    "product_quantised_nn",
    "product_tn",
    "product_tn_shards",
    "quantise_weight",
    "rms_norm_backward",
    "rms_norm_forward",
    "rotary_angles",
    "rotary_apply",
    "schedule_free_average",
    "schedule_free_update",
    "sgd_update",
    "silu_gate_backward",
    "silu_gate_forward",
    "softmax_backward",
    "softmax_forward",
    "square_sums",
    "to_bf16",
    "to_bf16_stochastic",
    "to_int8_rows",
    "tree_sum",
};

struct alignas(64) Counter {
  std::atomic<std::int64_t> calls{0};
  std::atomic<std::uint64_t> ticks{0};
  std::atomic<std::int64_t> flop{0};
  std::atomic<std::int64_t> bytes{0};
};

std::array<Counter, kOpCount>& counters() {
  static std::array<Counter, kOpCount> all;
  return all;
}

// The time-stamp counter against the clock, over the whole time since the process began.
struct Calibration {
  std::uint64_t ticks = __rdtsc();
  std::chrono::steady_clock::time_point time = std::chrono::steady_clock::now();

  double seconds_per_tick() const {
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - time;
    const std::uint64_t now = __rdtsc();
    return now > ticks ? passed.count() / static_cast<double>(now - ticks) : 0.0;
  }
};
const Calibration kStart;

}  // namespace

std::string_view to_string(Op op) { return kNames[static_cast<std::size_t>(op)]; }

OpTimer::OpTimer(Op op, const OpWork& work) : op_(op), work_(work), begin_(__rdtsc()) {}

OpTimer::~OpTimer() {
  Counter& counter = counters()[static_cast<std::size_t>(op_)];
  counter.calls.fetch_add(1, std::memory_order_relaxed);
  counter.ticks.fetch_add(__rdtsc() - begin_, std::memory_order_relaxed);
  counter.flop.fetch_add(work_.flop, std::memory_order_relaxed);
  counter.bytes.fetch_add(work_.bytes, std::memory_order_relaxed);
}

std::vector<OpCount> op_counts() {
  const double tick = kStart.seconds_per_tick();
  std::vector<OpCount> counts;
  for (std::size_t i = 0; i < kOpCount; ++i) {
    const Counter& counter = counters()[i];
    const std::int64_t calls = counter.calls.load(std::memory_order_relaxed);
    if (calls == 0) continue;
    counts.push_back({kNames[i], calls,
                      tick * static_cast<double>(counter.ticks.load(std::memory_order_relaxed)),
                      counter.flop.load(std::memory_order_relaxed),
                      counter.bytes.load(std::memory_order_relaxed)});
  }
  return counts;
}

}  // namespace tutti::kernels
