// A serving engine: many requests decoded together, each as if it were alone.
//
// Every step runs one batch: a token of each request that is decoding, and as many prompt tokens of
// those that are beginning as fit (chunked prefill), so that a long prompt never stops the others.
// Requests join and leave between steps (continuous batching, Yu et al. 2022). The decoder gives a
// sequence the same bits in any company and in any chunks, and draws are keyed by (seed, position):
// a request's tokens do not depend on its neighbours.
//
//   submit ----> queue ----> batch of <= batch_max: [prefill in chunks] -> [decode] ----> Output
//                  |             cache of its own; kept afterwards for prompts that begin alike
//                  +-- full: refused (exhausted)
//
// A cache is set aside for the whole request (prompt + answer) when it joins, within
// cache_bytes_max; a request waits in the queue until that fits, so none is ever thrown out.
// Caches of ended requests stay as long as there is room: a prompt that begins with the same
// tokens begins behind them, with the same bits.
//
// Ownership: refers to the model, weights and pool. Threads: one at a time.
// Errors of submit, of that request alone: invalid_argument (settings, token ids, an empty prompt
// without a begin token, more tokens than the context or the cache memory ever allow), exhausted
// (queue full), already_exists (id). If a batch fails, each of its requests ends with
// Finish::error (internal: Tutti's own error; unavailable: the device has failed for good), and the
// engine goes on.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "jobs/models/decoder.h"
#include "jobs/models/serving_weights.h"
#include "jobs/serving/request.h"
#include "jobs/tokenizers/tokenizer.h"
#include "kernels/tensor/op_context.h"
#include "protocol/base/clock.h"
#include "protocol/base/result.h"

namespace tutti::serving {

struct EngineOptions {
  std::uint32_t batch_max = 16;     // requests decoded together
  std::uint32_t context = 0;        // tokens of prompt and answer; 0: the model's
  std::uint32_t queue_max = 256;    // requests that wait
  std::uint32_t step_tokens = 256;  // in one batch, prompt tokens included
  // While others decode, prompts get only as many tokens of a step as take about this long.
  Duration prompt_pause = std::chrono::milliseconds(250);
  std::uint64_t cache_bytes_max = 0;  // keys and values; 0: batch_max times the context
};

struct EngineStatus {
  std::uint32_t waiting = 0;
  std::uint32_t running = 0;
  std::uint64_t cache_bytes = 0;    // held, those kept for reuse included
  std::uint64_t prompt_tokens = 0;  // totals since the start
  std::uint64_t reused_tokens = 0;  // of these, found in kept caches
  std::uint64_t completion_tokens = 0;
  std::uint64_t steps = 0;
};

struct EngineModel {
  const models::Decoder* decoder = nullptr;
  const models::ServingWeights* images = nullptr;    // of the decoder, where the ops run
  const tokenizers::Tokenizer* tokenizer = nullptr;  // null: token ids in and out only
  // That end an answer besides those of the decoder's description. If both are empty, the
  // tokenizer's end-of-text token does.
  std::vector<std::int32_t> end_tokens = {};
};

class Engine {
 public:
  Engine(const EngineModel& model, kernels::OpContext context, const EngineOptions& options);
  Engine(Engine&&) noexcept;
  ~Engine();

  Result<> submit(Request request);

  // The request ends with Finish::cancelled in the next step's outputs; unknown ids are ignored.
  void cancel(std::uint64_t id);

  // Runs one batch and gives what it added, in the order of arrival. Nothing to do: nothing.
  std::vector<Output> step();

  // Before the first request, on a device: nothing that is made once is left to make while somebody
  // waits (warm_up.h). Changes nothing that a request or the status could show.
  Result<> warm_up();

  // Whether a step would have nothing to do.
  bool idle() const;
  EngineStatus status() const;
  // Tokens that a request may have, answer included.
  std::uint32_t context() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tutti::serving
