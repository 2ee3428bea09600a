// Attention over a ragged batch, forward and backward; nothing of size time x time is ever held.
//
//   q, out, dout, dq   [tokens, heads * D]       head h of a token lies at columns h*D .. (h+1)*D-1
//   k, v, dk, dv       [tokens, kv_heads * D]    query head h reads key head h / (heads / kv_heads)
//   sample_offsets     [samples + 1]             ascending, first 0, last = tokens
//   lse                [tokens, heads]           log of the sum of exponentials; null: not kept
//   *_rounded   as products read them (rounded.h): q, k, v in place of these, which give shapes
//               then; out, dq, dk, dv beside these or in their place. Of a device that computes in
//               bf16, causal without window, cap and slopes, D up to kRoundedHeadWidthMax
//
// Token i of a sample sees tokens of the same sample only: 0..i (causal), of these the last
// `window` where one is set, or all (full: encoders). So packed documents are samples. D is a
// multiple of 8, at most 256; kv_heads divides heads. A score is
//   s = scale * q.k;   s = soft_cap * tanh(s / soft_cap) (Gemma 2);   s -= slope * |i - j| (ALiBi,
//   Press et al. 2022)
//
// Bits. A query reads its keys in blocks of kKeyBlock on the grid of positions 0, 64, 128, ...:
// scores are chains over D, each block's maximum, exponentials (ours), a 16-lane sum with a fixed
// tree; the value sum is a chain over keys, rescaled when the maximum grows. Keys that a query may
// not see are not touched. attention_cached has the same arithmetic over pages: chunked prefill and
// one-token decode have the bits of one prefill (key_value_pages.h). Backward sums dq over keys, dk
// and dv over (query head, query), ascending; on CPUs a weight below 2^-80 counts as 0 (decision
// 0103). Distances are exact below 2^24. Errors: invalid_argument, unsupported (rounded.h).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops/elementwise/rounded.h"
#include "kernels/tensor/matrix.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

inline constexpr Index kKeyBlock = 64;
inline constexpr Index kHeadWidthMax = 256;
inline constexpr Index kRoundedHeadWidthMax = 128;

enum class AttentionMask { causal, full };

// How the pages of a cache keep keys and values (key_value_pages.h).
enum class CacheType { f32, bf16, int8 };

struct AttentionShape {
  Index heads = 0;
  Index kv_heads = 0;
  Index head_width = 0;
  float scale = 0.0F;  // multiplies the scores; usually 1 / sqrt(head_width)
  AttentionMask mask = AttentionMask::causal;
  Index window = 0;               // causal: how many tokens a token sees, itself included; 0: all
  float soft_cap = 0.0F;          // 0: none
  const float* slopes = nullptr;  // [heads], ALiBi; null: none
  CacheType cache = CacheType::f32;  // of pages; the ops over a whole batch take f32 only
};

struct AttentionForward {
  AttentionShape shape;
  ConstMatrix q;
  ConstMatrix k;
  ConstMatrix v;
  std::span<const std::int32_t> sample_offsets;
  Matrix out;
  float* lse = nullptr;
  ConstRoundedMatrix q_rounded = {};
  ConstRoundedMatrix k_rounded = {};
  ConstRoundedMatrix v_rounded = {};
  RoundedMatrix out_rounded = {};
};
Result<> attention_forward(const OpContext& ctx, const AttentionForward& args);

struct AttentionBackward {
  AttentionShape shape;
  ConstMatrix q;
  ConstMatrix k;
  ConstMatrix v;
  ConstMatrix out;
  ConstMatrix dout;
  const float* lse = nullptr;
  std::span<const std::int32_t> sample_offsets;
  Matrix dq;  // all three are overwritten and overlap nothing
  Matrix dk;
  Matrix dv;
  ConstRoundedMatrix q_rounded = {};
  ConstRoundedMatrix k_rounded = {};
  ConstRoundedMatrix v_rounded = {};
  RoundedMatrix dq_rounded = {};
  RoundedMatrix dk_rounded = {};
  RoundedMatrix dv_rounded = {};
};
Result<> attention_backward(const OpContext& ctx, const AttentionBackward& args);

}  // namespace tutti::kernels
