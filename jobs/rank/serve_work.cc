#include "jobs/rank/serve_work.h"

#include <atomic>
#include <map>
#include <mutex>
#include <optional>

#include "jobs/rank/op_report.h"
#include "jobs/rank/serve_door.h"
#include "jobs/serving/engine.h"
#include "jobs/serving/model_folder.h"
#include "kernels/tensor/near_memory.h"
#include "kernels/tensor/thread_pool.h"
#include "protocol/base/log.h"
#include "protocol/spec/parse.h"

namespace tutti::rank {
namespace {

// Serving ranks have no data plane yet: nobody connects to them as a peer.
constexpr const char* kNoAddress = "none";
// A rank whose successor serves gets no further request; what was on its way meanwhile comes within
// this, and the last answers leave.
constexpr Duration kQuietBeforeEnd = std::chrono::milliseconds(100);

std::string_view finish_name(serving::Finish finish) {
  switch (finish) {
    case serving::Finish::none: return "";
    case serving::Finish::stop: return "stop";
    case serving::Finish::length: return "length";
    case serving::Finish::cancelled: return "cancelled";
    case serving::Finish::error: return "error";
  }
  return "error";
}

serving::Request to_request(const wire::Generate& asked, std::uint64_t id) {
  serving::Request request;
  request.id = id;
  request.prompt = asked.prompt;
  request.tokens = asked.tokens;
  request.tokens_max = asked.tokens_max;
  request.tokens_as_fit = asked.tokens_as_fit;
  request.temperature = asked.temperature;
  request.top_k = asked.top_k;
  request.top_p = asked.top_p;
  request.seed = asked.seed;
  request.stop = asked.stop;
  request.echo = asked.echo;
  request.logprobs = asked.logprobs != 0;
  return request;
}

wire::Generated to_generated(const serving::Output& output, std::uint64_t request) {
  wire::Generated generated;
  generated.request = request;
  generated.text = output.text;
  generated.tokens = output.tokens;
  for (const auto& choice : output.chosen) {
    generated.chosen.push_back({choice.token, choice.text, choice.logprob});
  }
  generated.finish = finish_name(output.finish);
  if (output.error) {
    generated.error = output.error->message;
    generated.error_code = to_string(output.error->code);
  }
  generated.prompt_tokens = output.prompt_tokens;
  generated.completion_tokens = output.completion_tokens;
  return generated;
}

wire::Generated refusal(std::uint64_t request, const Error& error) {
  wire::Generated generated;
  generated.request = request;
  generated.finish = "error";
  generated.error = error.message;
  generated.error_code = to_string(error.code);
  return generated;
}

class ServeWork final : public Work {
 public:
  Result<> set_up(const wire::StartRank& order) override;
  Result<std::string> listen(const BeginListening& order) override;
  wire::HeldState held() const override { return {}; }
  void run_group(const BeginGroup& order, const EventSink& sink) override;
  Result<std::string> commit(const wire::CommitCheckpoint&) override {
    return Error{ErrorCode::invalid_argument, "a serving rank has no checkpoints"};
  }
  void interrupt(const std::string& reason) override;
  void raise_flags(const RaiseFlags&) override {}
  bool wind_down() override;
  const training::Progress& progress() const override { return progress_; }

 private:
  // Who asked: requests of the engine are numbered here, since peers choose their numbers alone.
  struct Asker {
    std::string peer;
    std::uint64_t request = 0;
  };

  Result<> check_room();
  // Until it is interrupted, has wound down, or cannot go on: what it ends by then.
  std::optional<Finished> serve();
  void take(const Arrived& arrived);
  void take(const serving::Output& output);
  void give_answers();
  void cancel(const std::string& peer, std::uint64_t request);
  std::optional<std::string> interruption();

  spec::JobSpec spec_;
  std::string name_;
  std::unique_ptr<kernels::Device> device_;  // null: the CPU
  std::uint64_t cache_bytes_ = 0;            // 0: the engine chooses
  std::optional<serving::ServedModel> model_;
  std::optional<kernels::ThreadPool> pool_;
  std::optional<serving::Engine> engine_;
  std::map<std::uint64_t, Asker> askers_;
  std::vector<Answer> answers_;  // of this turn
  std::uint64_t last_id_ = 0;
  training::Progress progress_;

  std::mutex mutex_;  // what interrupt() touches
  std::unique_ptr<ServeDoor> door_;
  std::optional<std::string> interrupted_;
  std::atomic<bool> winding_down_{false};
};

Result<> ServeWork::set_up(const wire::StartRank& order) {
  progress_.enter(training::Phase::loading);
  auto spec = spec::parse_job_spec(order.spec, {.file = order.name, .overrides = {}});
  if (!spec) return spec.error();
  spec_ = *std::move(spec);
  name_ = spec_.serve.name.empty() ? order.name : spec_.serve.name;
  pool_.emplace(threads_of(order));
  kernels::bind_caller(*pool_);  // before its memory is made
  auto device = open_rank_device(order);
  if (!device) return device.error();
  device_ = *std::move(device);
  if (auto fits = check_room(); !fits) return fits;
  auto model =
      serving::load_served_model({&*pool_, device_.get()}, spec_.model.path, spec_.serve.weights);
  if (!model) return model.error();
  model_.emplace(*std::move(model));
  TUTTI_LOG_INFO("rank", "serves {}: {} MB of weights in {}", name_, model_->images.bytes() >> 20,
                 spec_.serve.weights);
  if (!device_) return {};
  // Half of what is left of the device is for caches.
  auto free = device_->free_bytes();
  if (!free) return free.error();
  cache_bytes_ = *free / 2;
  return {};
}

// Before anything is read: a model that is too large for the device is the user's, as no retry
// helps.
Result<> ServeWork::check_room() {
  if (!device_) return {};
  const auto decoder = models::load_decoder(spec_.model.path);
  if (!decoder) return decoder.error();
  const auto needed =
      models::ServingWeights::device_bytes(*decoder, spec_.serve.weights, spec_.model.path);
  if (!needed) return needed.error();
  const auto free = device_->free_bytes();
  if (!free) return free.error();
  if (*needed <= *free) return {};
  return Error{ErrorCode::invalid_argument,
               "the model needs " + std::to_string(*needed >> 20) + " MB in " +
                   spec_.serve.weights + " on " + std::string(device_->name()) + ", which has " +
                   std::to_string(*free >> 20) +
                   " MB free: take fewer bits (serve.weights), or a larger GPU"};
}

Result<std::string> ServeWork::listen(const BeginListening&) {
  const std::lock_guard lock(mutex_);
  interrupted_.reset();
  return std::string(kNoAddress);
}

void ServeWork::interrupt(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (!interrupted_) interrupted_ = reason;
  if (door_) door_->wake();
}

bool ServeWork::wind_down() {
  const std::lock_guard lock(mutex_);
  if (!door_) return false;
  winding_down_ = true;
  door_->wake();
  return true;
}

std::optional<std::string> ServeWork::interruption() {
  const std::lock_guard lock(mutex_);
  return interrupted_;
}

void ServeWork::run_group(const BeginGroup& order, const EventSink& sink) {
  auto door = ServeDoor::open();
  if (!door) return sink(Finished{0, failure_of(door.error().code), door.error().message});
  {
    const std::lock_guard lock(mutex_);
    door_ = *std::move(door);
    if (interrupted_) door_->wake();
  }
  engine_.emplace(model_->view(), kernels::OpContext{&*pool_, device_.get()},
                  serving::EngineOptions{.batch_max = spec_.serve.batch_max,
                                         .context = spec_.serve.tokens_max,
                                         .cache_bytes_max = cache_bytes_});
  if (auto warm = engine_->warm_up(); !warm) {
    return sink(end_of_device(device_.get(), 0).value_or(end_of_job(warm.error(), 0)));
  }
  Entered entered;
  entered.generation = order.order.generation;
  entered.serve_endpoint = door_->address();
  entered.serve_key = door_->public_key();
  entered.model = name_;
  sink(entered);
  progress_.enter(training::Phase::serving);
  const std::optional<Finished> ended = serve();
  const std::string reason =
      ended ? ended->message : interruption().value_or("its requests are answered");
  for (const auto& [id, asker] : askers_) {
    answers_.push_back({asker.peer, refusal(asker.request, {ErrorCode::unavailable, reason})});
  }
  askers_.clear();
  give_answers();
  progress_.enter(training::Phase::idle);
  {
    const std::lock_guard lock(mutex_);
    door_.reset();
  }
  log_ops();
  if (ended) return sink(*ended);
  sink(GroupLeft{order.order.generation, -1, reason, held()});
}

std::optional<Finished> ServeWork::serve() {
  while (!interruption()) {
    for (const Arrived& arrived : door_->take()) take(arrived);
    const bool idle = engine_->idle();
    bool failed = false;
    progress_.enter(idle ? training::Phase::serving : training::Phase::answering);
    if (!idle) {
      for (const serving::Output& output : engine_->step()) {
        failed = failed || output.error.has_value();
        take(output);
      }
    }
    give_answers();
    if (failed) {
      if (auto end = end_of_device(device_.get(), engine_->status().steps)) return end;
    }
    if (idle && winding_down_ && !door_->wait_within(kQuietBeforeEnd)) return std::nullopt;
    if (idle && !winding_down_) door_->wait();
    progress_.step.store(engine_->status().steps, std::memory_order_relaxed);
  }
  return std::nullopt;
}

void ServeWork::take(const Arrived& arrived) {
  if (const auto* order = std::get_if<wire::CancelGenerate>(&arrived.message)) {
    return cancel(arrived.peer, order->request);
  }
  const auto& asked = std::get<wire::Generate>(arrived.message);
  const std::uint64_t id = ++last_id_;
  auto submitted = engine_->submit(to_request(asked, id));
  if (submitted) {
    askers_[id] = {arrived.peer, asked.request};
  } else {
    answers_.push_back({arrived.peer, refusal(asked.request, submitted.error())});
  }
}

void ServeWork::take(const serving::Output& output) {
  const auto asker = askers_.find(output.id);
  if (asker == askers_.end()) return;
  answers_.push_back({asker->second.peer, to_generated(output, asker->second.request)});
  if (output.finish != serving::Finish::none) askers_.erase(asker);
}

// A request whose answer nobody reads any more is cancelled.
void ServeWork::give_answers() {
  if (answers_.empty()) return;
  for (const std::size_t lost : door_->give(answers_)) {
    cancel(answers_[lost].peer, answers_[lost].generated.request);
  }
  answers_.clear();
}

void ServeWork::cancel(const std::string& peer, std::uint64_t request) {
  for (const auto& [id, asker] : askers_) {
    if (asker.peer == peer && asker.request == request) engine_->cancel(id);
  }
}

}  // namespace

std::unique_ptr<Work> make_serve_work() { return std::make_unique<ServeWork>(); }

}  // namespace tutti::rank
