#include "jobs/serving/engine.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <optional>
#include <utility>

#include "jobs/models/inference_pass.h"
#include "jobs/serving/answer_text.h"
#include "jobs/serving/cache_pool.h"
#include "jobs/serving/request_check.h"
#include "jobs/serving/warm_up.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/choose_tokens.h"
#include "kernels/tensor/device_failure.h"

namespace tutti::serving {
namespace {

// Room for logits of prompt tokens, wanted only where a prompt is echoed with log-probabilities.
constexpr std::uint64_t kPromptLogitBytesMax = std::uint64_t{64} << 20;

// Prompts go on by at least this much a step, however slow the machine.
constexpr std::uint32_t kPromptTokensMin = 16;

// A request in the batch or on its way there.
struct Live {
  explicit Live(Request request_in) : request(std::move(request_in)), answer(request.stop) {}

  std::uint32_t cached() const { return slot->cache.length(); }
  bool wants_prompt_logits() const { return request.echo && request.logprobs; }

  Request request;
  AnswerText answer;
  std::vector<std::int32_t> tokens;  // the prompt, then what was drawn
  std::uint32_t prompt_count = 0;
  std::uint32_t drawn = 0;
  CachePool::Slot* slot = nullptr;
  bool cancelled = false;
  bool ended = false;
  Output output;  // of the current step
};

// One request's part of a batch.
struct Part {
  Live* live = nullptr;
  std::uint32_t first = 0;  // index of its first token
  std::uint32_t count = 0;
  models::LogitRows wanted = models::LogitRows::none;
};

std::uint64_t quarter_of_memory() {
  return static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) / 4;
}

EngineOptions resolved(EngineOptions options, const models::DecoderDescription& description) {
  const std::uint32_t longest = description.positions_max;
  if (options.context == 0 || options.context > longest) options.context = longest;
  options.batch_max = std::max(options.batch_max, 1U);
  options.step_tokens = std::max(options.step_tokens, options.batch_max);
  if (options.cache_bytes_max == 0) {
    const std::uint64_t one = models::KvCache::bytes(description, options.context);
    options.cache_bytes_max = std::max(one, std::min(one * options.batch_max, quarter_of_memory()));
  }
  return options;
}

}  // namespace

struct Engine::Impl {
  Impl(const EngineModel& model_in, kernels::OpContext ctx_in, const EngineOptions& options_in)
      : model(model_in),
        ctx(ctx_in),
        description(model.decoder->description()),
        options(resolved(options_in, description)),
        prompt_rows_max(static_cast<std::uint32_t>(std::clamp<std::uint64_t>(
            kPromptLogitBytesMax / (4ULL * description.vocabulary), 1, options.step_tokens))),
        pool(description, options.cache_bytes_max, ctx.device),
        pass(*model.decoder, {.rows_max = options.step_tokens, .samples_max = options.batch_max},
             ctx.device, {.tokens_max = options.context, .pages_max = pool.pages_max()}) {
    end_tokens = model.end_tokens;
    for (const std::int64_t id : description.end_tokens) {
      end_tokens.push_back(static_cast<std::int32_t>(id));
    }
    if (end_tokens.empty() && model.tokenizer != nullptr) {
      if (const auto id = model.tokenizer->end_of_text()) {
        end_tokens.push_back(static_cast<std::int32_t>(*id));
      }
    }
  }

  void admit();
  void begin(Live& live);
  void plan_batch();
  std::uint32_t tokens_in_pause() const;
  void note_step(Duration took);
  void run_batch();
  Result<> run_pass();
  void fail_batch(const Error& error);
  void add_draws(const Part& part);
  void take_choices(const Part& part, std::span<const kernels::ChosenToken> rows);
  void take_drawn(Live& live, const kernels::ChosenToken& drawn);
  void add_choice(Live& live, std::int32_t token, float logprob);
  void end(Live& live, Finish finish);
  std::vector<Output> collect();

  const EngineModel model;
  const kernels::OpContext ctx;
  const models::DecoderDescription& description;
  const EngineOptions options;
  const std::uint32_t prompt_rows_max;
  CachePool pool;
  models::InferencePass pass;
  std::vector<kernels::TokenDraw> draws;  // of the wanted rows of a batch
  std::vector<kernels::ChosenToken> chosen;
  std::vector<std::int32_t> end_tokens;
  std::deque<std::unique_ptr<Live>> waiting;
  std::vector<std::unique_ptr<Live>> running;  // in order of arrival
  std::vector<Part> batch;
  std::vector<models::SequenceChunk> chunks;
  EngineStatus totals;
  double token_seconds = 0;  // of a prompt token, smoothed; 0: not known yet
};

void Engine::Impl::admit() {
  while (!waiting.empty() && running.size() < options.batch_max) {
    Live& live = *waiting.front();
    // The last token drawn is never run; where prompt logits are wanted, no prompt token may be
    // skipped.
    const auto capacity =
        std::max(live.prompt_count, live.prompt_count + live.request.tokens_max - 1);
    const std::uint32_t reused_max = live.wants_prompt_logits() ? 0 : live.prompt_count - 1;
    live.slot = pool.take(live.tokens, capacity, reused_max);
    if (live.slot == nullptr) return;  // in order of arrival: nobody overtakes
    running.push_back(std::move(waiting.front()));
    waiting.pop_front();
    begin(*running.back());
  }
}

void Engine::Impl::begin(Live& live) {
  totals.prompt_tokens += live.prompt_count;
  totals.reused_tokens += live.cached();
  if (live.request.echo) {
    for (const std::int32_t token : live.tokens) {
      live.output.tokens.push_back(static_cast<std::uint32_t>(token));
    }
    if (model.tokenizer != nullptr) {
      live.output.text = live.answer.echo(live.request.tokens.empty()
                                              ? live.request.prompt
                                              : model.tokenizer->decode(live.request.tokens));
    }
    if (live.request.logprobs) add_choice(live, live.tokens[0], 0);
  }
  const bool needs_no_run = live.prompt_count == 1 || !live.wants_prompt_logits();
  if (live.request.tokens_max == 0 && needs_no_run) end(live, Finish::length);
}

// Requests that are decoding come first, so that prompts never hold them up; prompts share what is
// left of the step's tokens, the oldest first.
void Engine::Impl::plan_batch() {
  batch.clear();
  std::uint32_t left = options.step_tokens;
  std::uint32_t prompt_rows_left = prompt_rows_max;
  const auto add = [&](Live& live, std::uint32_t count) {
    const std::uint32_t last = live.cached() + count;
    Part part{&live, live.cached(), count, models::LogitRows::none};
    if (live.wants_prompt_logits() && live.cached() < live.prompt_count) {
      part.wanted = models::LogitRows::all;
      prompt_rows_left -= count;
    } else if (last == live.tokens.size()) {
      part.wanted = models::LogitRows::last;
    }
    left -= count;
    batch.push_back(part);
  };
  for (const auto& live : running) {
    if (live->output.finish == Finish::none && live->drawn > 0) add(*live, 1);
  }
  const std::uint32_t prompt_tokens_max = batch.empty() ? left : tokens_in_pause();
  left = std::min(left, prompt_tokens_max);
  for (const auto& live : running) {
    if (live->output.finish != Finish::none || live->drawn > 0) continue;
    std::uint32_t count = std::min(left, live->prompt_count - live->cached());
    if (live->wants_prompt_logits()) count = std::min(count, prompt_rows_left);
    if (count > 0) add(*live, count);
  }
}

// How long a prompt token takes comes from the steps before; it decides when a token is computed,
// and never which one it is.
std::uint32_t Engine::Impl::tokens_in_pause() const {
  if (token_seconds == 0) return options.step_tokens;
  const double tokens = to_seconds(options.prompt_pause) / token_seconds;
  return static_cast<std::uint32_t>(
      std::clamp<double>(tokens, kPromptTokensMin, options.step_tokens));
}

void Engine::Impl::note_step(Duration took) {
  std::uint32_t tokens = 0;
  for (const Part& part : batch) tokens += part.count;
  if (tokens < kPromptTokensMin + batch.size()) return;  // not a step that prompts dominate
  const double seconds = to_seconds(took) / tokens;
  token_seconds = token_seconds == 0 ? seconds : 0.7 * token_seconds + 0.3 * seconds;
}

// What is wanted of the part's rows: the next prompt token's probability, or a draw.
void Engine::Impl::add_draws(const Part& part) {
  const Live& live = *part.live;
  const std::uint32_t end = part.first + part.count;
  for (std::uint32_t at = part.wanted == models::LogitRows::all ? part.first : end - 1; at < end;
       ++at) {
    kernels::TokenDraw draw;
    draw.position = at + 1;
    draw.logprob = live.request.logprobs;
    if (at + 1 < live.prompt_count) {
      draw.given = live.tokens[at + 1];
    } else if (live.request.tokens_max == 0) {
      draw.given = 0;
      draw.logprob = false;
    } else {
      draw.settings = {
          .temperature = live.request.temperature,
          .top_k = static_cast<std::int32_t>(std::min(live.request.top_k, description.vocabulary)),
          .top_p = live.request.top_p,
          .seed = live.request.seed};
    }
    draws.push_back(draw);
  }
}

Result<> Engine::Impl::run_pass() {
  try {
    return pass.choose(ctx, *model.images, chunks, draws, chosen);
  } catch (const kernels::DeviceFailure& failure) {
    return failure.error();
  }
}

void Engine::Impl::run_batch() {
  chunks.clear();
  draws.clear();
  for (const Part& part : batch) {
    chunks.push_back(
        {&part.live->slot->cache,
         std::span<const std::int32_t>(part.live->tokens).subspan(part.first, part.count),
         part.wanted});
    if (part.wanted != models::LogitRows::none) add_draws(part);
  }
  chosen.resize(draws.size());
  ++totals.steps;
  const Instant begin = monotonic_now();
  if (const Result<> run = run_pass(); !run) return fail_batch(run.error());
  note_step(monotonic_now() - begin);
  std::size_t row = 0;
  for (const Part& part : batch) {
    std::size_t count = 0;
    if (part.wanted == models::LogitRows::last) count = 1;
    if (part.wanted == models::LogitRows::all) count = part.count;
    take_choices(part, std::span(chosen).subspan(row, count));
    row += count;
  }
}

void Engine::Impl::fail_batch(const Error& error) {
  // A device that failed is replaced with its rank: asking again helps.
  const bool passes = error.code == ErrorCode::unavailable;
  const Error told{passes ? ErrorCode::unavailable : ErrorCode::internal,
                   "the batch failed: " + error.message};
  for (const Part& part : batch) {
    part.live->output.error = told;
    end(*part.live, Finish::error);
  }
}

void Engine::Impl::take_choices(const Part& part, std::span<const kernels::ChosenToken> rows) {
  Live& live = *part.live;
  if (part.wanted == models::LogitRows::all) {
    for (std::uint32_t i = 0; i < part.count; ++i) {
      const std::uint32_t next = part.first + i + 1;
      if (next < live.prompt_count) add_choice(live, live.tokens[next], rows[i].logprob);
    }
  }
  if (rows.empty() || live.cached() < live.tokens.size()) return;
  if (live.request.tokens_max == 0) return end(live, Finish::length);
  take_drawn(live, rows.back());
}

void Engine::Impl::add_choice(Live& live, std::int32_t token, float logprob) {
  const auto id = static_cast<std::uint32_t>(token);
  std::string text;
  if (model.tokenizer != nullptr) text = model.tokenizer->bytes(id);
  live.output.chosen.push_back({id, std::move(text), logprob});
}

void Engine::Impl::take_drawn(Live& live, const kernels::ChosenToken& drawn) {
  const Request& request = live.request;
  const std::int32_t token = drawn.token;
  live.tokens.push_back(token);
  ++live.drawn;
  ++totals.completion_tokens;
  const auto id = static_cast<std::uint32_t>(token);
  live.output.tokens.push_back(id);
  if (request.logprobs) add_choice(live, token, drawn.logprob);
  const bool ends = !request.ignores_end &&
                    std::find(end_tokens.begin(), end_tokens.end(), token) != end_tokens.end();
  if (model.tokenizer != nullptr && !ends && !model.tokenizer->is_special(id)) {
    live.output.text += live.answer.push(model.tokenizer->bytes(id));
  }
  if (ends || live.answer.stopped()) {
    end(live, Finish::stop);
  } else if (live.drawn == request.tokens_max) {
    end(live, Finish::length);
  }
}

void Engine::Impl::end(Live& live, Finish finish) {
  live.output.text += live.answer.finish();
  live.output.finish = finish;
  live.output.prompt_tokens = live.prompt_count;
  live.output.completion_tokens = live.drawn;
}

std::vector<Output> Engine::Impl::collect() {
  std::vector<Output> outputs;
  for (const auto& live : running) {
    Output& output = live->output;
    output.id = live->request.id;
    live->ended = output.finish != Finish::none;
    if (live->ended && live->slot != nullptr) {
      pool.give_back(live->slot, std::span<const std::int32_t>(live->tokens).first(live->cached()));
    }
    if (live->ended || !output.text.empty() || !output.tokens.empty() || !output.chosen.empty()) {
      outputs.push_back(std::exchange(output, {}));
    }
  }
  std::erase_if(running, [](const auto& live) { return live->ended; });
  return outputs;
}

Engine::Engine(const EngineModel& model, kernels::OpContext context, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(model, context, options)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine::~Engine() = default;

Result<> Engine::submit(Request request) {
  Impl& impl = *impl_;
  const auto same_id = [&](const auto& live) { return live->request.id == request.id; };
  if (std::any_of(impl.waiting.begin(), impl.waiting.end(), same_id) ||
      std::any_of(impl.running.begin(), impl.running.end(), same_id)) {
    return Error{ErrorCode::already_exists, fmt::format("request {} is there", request.id)};
  }
  if (impl.waiting.size() >= impl.options.queue_max) {
    return Error{ErrorCode::exhausted,
                 fmt::format("{} requests are waiting; try again later", impl.waiting.size())};
  }
  if (Result<> checked = check_settings(request); !checked) return checked;
  Result<std::vector<std::int32_t>> prompt =
      prompt_tokens(request, impl.model.tokenizer, impl.description);
  if (!prompt) return prompt.error();
  const std::size_t context = impl.options.context;
  if (request.tokens_as_fit && prompt->size() < context) {
    request.tokens_max =
        std::min(request.tokens_max, static_cast<std::uint32_t>(context - prompt->size()));
  }
  const std::uint64_t wanted = prompt->size() + std::uint64_t{request.tokens_max};
  if (wanted > impl.options.context) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("{} tokens of prompt and {} of answer are more than the context of {}",
                             prompt->size(), request.tokens_max, impl.options.context)};
  }
  if (!impl.pool.ever_fits(static_cast<std::uint32_t>(wanted))) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("{} tokens need more cache memory than this server has", wanted)};
  }
  auto live = std::make_unique<Live>(std::move(request));
  live->tokens = std::move(*prompt);
  live->prompt_count = static_cast<std::uint32_t>(live->tokens.size());
  live->tokens.reserve(wanted);
  impl.waiting.push_back(std::move(live));
  return {};
}

void Engine::cancel(std::uint64_t id) {
  const auto mark = [&](const auto& lives) {
    for (const auto& live : lives) {
      if (live->request.id == id) live->cancelled = true;
    }
  };
  mark(impl_->waiting);
  mark(impl_->running);
}

std::vector<Output> Engine::step() {
  Impl& impl = *impl_;
  // Cancelled ones leave first, from the queue too: they pass through the batch without running.
  const auto first_kept = std::stable_partition(impl.waiting.begin(), impl.waiting.end(),
                                                [](const auto& live) { return live->cancelled; });
  std::move(impl.waiting.begin(), first_kept, std::back_inserter(impl.running));
  impl.waiting.erase(impl.waiting.begin(), first_kept);
  for (const auto& live : impl.running) {
    if (live->cancelled) impl.end(*live, Finish::cancelled);
  }
  impl.admit();
  impl.plan_batch();
  if (!impl.batch.empty()) impl.run_batch();
  return impl.collect();
}

Result<> Engine::warm_up() {
  Impl& impl = *impl_;
  if (impl.ctx.device == nullptr) return {};
  const std::uint64_t room = impl.pool.pages_max() * kernels::kKeyBlock;
  if (room == 0) return {};  // no request fits
  try {
    return serving::warm_up(
        impl.ctx, impl.pass,
        {.description = impl.description,
         .images = *impl.model.images,
         .batch_max = impl.options.batch_max,
         .step_tokens = std::min(impl.options.step_tokens, impl.options.context),
         .tokens_max =
             static_cast<std::uint32_t>(std::min<std::uint64_t>(impl.options.context, room))});
  } catch (const kernels::DeviceFailure& failure) {
    return failure.error();
  }
}

bool Engine::idle() const { return impl_->waiting.empty() && impl_->running.empty(); }

EngineStatus Engine::status() const {
  EngineStatus status = impl_->totals;
  status.waiting = static_cast<std::uint32_t>(impl_->waiting.size());
  status.running = static_cast<std::uint32_t>(impl_->running.size());
  status.cache_bytes = impl_->pool.bytes();
  return status;
}

std::uint32_t Engine::context() const { return impl_->options.context; }

}  // namespace tutti::serving
