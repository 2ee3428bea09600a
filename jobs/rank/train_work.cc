#include "jobs/rank/train_work.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "jobs/checkpoint/checkpoint_writer.h"
#include "jobs/rank/op_report.h"
#include "jobs/rank/open_group.h"
#include "jobs/training/memory_estimate.h"
#include "jobs/training/tile_padding.h"
#include "jobs/training/trainer.h"
#include "kernels/collective/communicator.h"
#include "protocol/base/log.h"
#include "protocol/spec/parse.h"

namespace tutti::rank {
namespace {

// A slow rank is waited for; the coordinator decides when a job hangs. This only ends a group that
// everyone forgot.
constexpr Duration kOperationDeadline = std::chrono::minutes(30);
constexpr Duration kFormDeadline = std::chrono::seconds(60);

// Between an address and what the rank's device says for its own links.
constexpr char kLinkMark = '|';

// The address that other hosts reach this one by; without it ranks meet over Unix sockets.
constexpr const char* kDataHostVariable = "TUTTI_DATA_HOST";

// Of each direction of a link in shared memory, a power of two; 0: sockets only.
constexpr const char* kRingBytesVariable = "TUTTI_RING_BYTES";

std::uint64_t ring_bytes() {
  const char* const said = std::getenv(kRingBytesVariable);
  if (said == nullptr) return kernels::kRingBytes;
  std::uint64_t bytes = 0;
  const char* const end = said + std::strlen(said);
  const auto [rest, error] = std::from_chars(said, end, bytes);
  if (error == std::errc() && rest == end) return bytes;
  TUTTI_LOG_WARNING("rank", "{}={} is no number of bytes; rings have {}", kRingBytesVariable, said,
                    kernels::kRingBytes);
  return kernels::kRingBytes;
}

std::filesystem::path checkpoints_of(const std::string& folder) {
  return std::filesystem::path(folder) / "checkpoints";
}

kernels::Precision precision_of(const spec::JobSpec& spec) {
  if (spec.train.precision == "bf16") return kernels::Precision::bf16;
  if (spec.train.precision == "fp16") return kernels::Precision::fp16;
  if (spec.train.precision == "fp8") return kernels::Precision::fp8;
  return spec.train.precision == "tf32" ? kernels::Precision::tf32 : kernels::Precision::fp32;
}

// On the CPU. In bf16 that of the job's profile, or what is fastest here: before a job's first
// placement, and where the path in use has no such arithmetic, which check_profile then says.
std::optional<kernels::Rounding> rounding_for(kernels::Precision precision,
                                              const std::string& profile) {
  if (precision == kernels::Precision::fp16) return kernels::Fp16Arithmetic{};
  if (precision != kernels::Precision::bf16) return std::nullopt;
  const auto wanted = kernels::arithmetic_of(profile);
  return wanted && kernels::has_bf16(*wanted) ? *wanted : kernels::fastest_bf16();
}

class TrainWork final : public Work {
 public:
  Result<> set_up(const wire::StartRank& order) override;
  Result<std::string> listen(const BeginListening& order) override;
  wire::HeldState held() const override;
  void run_group(const BeginGroup& order, const EventSink& sink) override;
  Result<std::string> commit(const wire::CommitCheckpoint& order) override;
  void interrupt(const std::string& reason) override;
  void raise_flags(const RaiseFlags& flags) override;
  const training::Progress& progress() const override { return progress_; }
  std::uint64_t collective() override { return group_.operations(); }

 private:
  Result<std::string> own_link(const BeginListening& order);
  Result<kernels::Communicator*> connect(const BeginGroup& order);
  void make_steps(const EventSink& sink, const training::Entered& entered);
  Result<> save_part(const EventSink& sink);
  void leave(const Error& error, const EventSink& sink);

  std::unique_ptr<kernels::Device> device_;  // null: the CPU
  std::unique_ptr<training::TrainingJob> job_;
  training::Progress progress_;
  std::optional<training::Trainer> trainer_;
  std::string folder_;
  Generation generation_;
  std::atomic<std::uint64_t> flags_{0};

  OpenGroup group_;
};

Result<> TrainWork::set_up(const wire::StartRank& order) {
  auto spec = spec::parse_job_spec(order.spec, {.file = order.name, .overrides = {}});
  if (!spec) return spec.error();
  progress_.enter(training::Phase::loading);
  folder_ = order.folder;
  auto job = training::open_training_job({*spec, order.spec, order.folder});
  if (!job) return job.error();
  job_ = *std::move(job);
  const kernels::Precision precision = precision_of(job_->spec);
  auto device = open_rank_device(order, precision);
  if (!device) return device.error();
  device_ = *std::move(device);
  if (device_ == nullptr &&
      (precision == kernels::Precision::tf32 || precision == kernels::Precision::fp8)) {
    return Error{ErrorCode::unsupported, "train.precision " + job_->spec.train.precision +
                                             " is an arithmetic of GPUs, and this rank has none"};
  }
  const auto rounding = device_ == nullptr ? rounding_for(precision, order.profile) : std::nullopt;
  const std::string_view own =
      device_ != nullptr ? device_->profile() : training::profile_on_cpu(rounding);
  if (auto same = check_profile(order, own); !same) return same;
  if (auto fits = training::fit_memory(*job_, device_.get()); !fits) return fits;
  if (!job_->rounds_weights) {
    TUTTI_LOG_INFO("rank", "has no room for rounded weights: each product rounds what it reads");
  }
  const auto tiles = device_ == nullptr ? training::cpu_tiles()
                                        : training::gpu_tiles(training::input_bytes(job_->spec));
  const auto padding = training::tile_padding(job_->decoder.description(), tiles);
  for (const std::string& line : padding.lines()) TUTTI_LOG_INFO("rank", "{}", line);
  trainer_.emplace(*job_, threads_of(order), progress_, device_.get(), rounding);
  return {};
}

Result<std::string> TrainWork::listen(const BeginListening& order) {
  const char* const host = std::getenv(kDataHostVariable);
  auto listener = kernels::Listener::open({host == nullptr ? "" : host});
  if (!listener) return listener.error();
  auto link = own_link(order);
  if (!link) return link.error();
  group_.listen(*std::move(listener));
  flags_.store(0);
  return group_.listener().address() + *link;
}

// What the first rank's address has behind it where devices have links of their own: where all of
// them meet. Making one leaves a thread and a socket of the library's behind.
Result<std::string> TrainWork::own_link(const BeginListening& order) {
  if (device_ == nullptr || order.rank != 0 || order.size == 1) return std::string();
  auto id = device_->link_id();
  if (!id) return id.error();
  return kLinkMark + *id;
}

wire::HeldState TrainWork::held() const {
  const training::Held held = trainer_->held();
  return {held.whole, held.step, held.pending};
}

void TrainWork::interrupt(const std::string& reason) { group_.interrupt(reason); }

void TrainWork::raise_flags(const RaiseFlags& flags) {
  flags_.fetch_or((flags.save ? training::kFlagSave : 0) | (flags.stop ? training::kFlagStop : 0));
}

Result<kernels::Communicator*> TrainWork::connect(const BeginGroup& order) {
  progress_.enter(training::Phase::connecting);
  // The first rank's address carries the link of the devices behind it.
  std::vector<std::string> addresses = order.order.addresses;
  std::string link;
  for (std::size_t i = addresses.size(); i > 0; --i) {
    const std::size_t mark = addresses[i - 1].find(kLinkMark);
    link = mark == std::string::npos ? "" : addresses[i - 1].substr(mark + 1);
    addresses[i - 1].resize(std::min(mark, addresses[i - 1].size()));
  }
  auto group = group_.listener().connect({.rank = order.rank,
                                          .addresses = addresses,
                                          .generation = order.order.generation.value,
                                          .secret = order.order.secret,
                                          .deadline = kFormDeadline,
                                          .operation_deadline = kOperationDeadline,
                                          .ring_bytes = ring_bytes()});
  if (group && device_ != nullptr && addresses.size() > 1) {
    group = device_->link(*std::move(group), link);
  }
  if (!group) return group.error();
  return &group_.hold(*std::move(group));
}

void TrainWork::run_group(const BeginGroup& order, const EventSink& sink) {
  generation_ = order.order.generation;
  auto group = connect(order);
  if (!group && group.error().code == ErrorCode::unsupported) {
    // No other attempt of these ranks would end otherwise.
    return sink(end_of_job(group.error(), trainer_->state().step));
  }
  if (!group) return leave(group.error(), sink);
  training::EnterPlan plan{.generation = generation_.value,
                           .base_step = order.order.base_step,
                           .checkpoint = order.order.checkpoint,
                           .root = checkpoints_of(folder_).string(),
                           .copies = {},
                           .flags = flags_.load()};
  for (const wire::StateCopy& copy : order.order.copies)
    plan.copies.push_back({copy.from, copy.to});
  auto entered = trainer_->enter(**group, plan);
  if (!entered) return leave(entered.error(), sink);
  Entered event;
  event.generation = generation_;
  event.step = entered->step;
  event.copied_bytes = entered->copied_bytes;
  TUTTI_LOG_INFO("rank", "generation {}: {} ranks stand at step {}, {} MB copied or loaded",
                 generation_.value, (*group)->size(), event.step, event.copied_bytes / 1'000'000);
  sink(event);
  if (entered->finished) {
    const training::StepRecord& record = *entered->finished;
    const Generation begun_in{record.generation};
    sink(StepCommitted{begun_in, record.step, false, training::to_json(record)});
  }
  make_steps(sink, *entered);
}

void TrainWork::make_steps(const EventSink& sink, const training::Entered& entered) {
  flags_.fetch_and(~entered.flags);
  if (entered.save_is_due) {
    if (auto saved = save_part(sink); !saved) return leave(saved.error(), sink);
  }
  bool first = true;
  bool stopped = (entered.flags & training::kFlagStop) != 0;
  while (!stopped && trainer_->state().step < job_->last_step()) {
    auto outcome = trainer_->step(*group_.get(), flags_.load());
    if (!outcome) return leave(outcome.error(), sink);
    flags_.fetch_and(~outcome->flags);
    sink(StepCommitted{generation_, outcome->record.step, first,
                       training::to_json(outcome->record)});
    first = false;
    const bool asked = (outcome->flags & training::kFlagSave) != 0;
    if (asked || job_->saves_after(outcome->record.step)) {
      if (auto saved = save_part(sink); !saved) return leave(saved.error(), sink);
    }
    stopped = (outcome->flags & training::kFlagStop) != 0;
  }
  trainer_->flags_honoured();
  progress_.enter(training::Phase::idle);
  log_ops();
  sink(Finished{trainer_->state().step, wire::FailureClass::none, ""});
}

// A part that cannot be written fails the checkpoint, not the job. Errors: the device's.
Result<> TrainWork::save_part(const EventSink& sink) {
  progress_.enter(training::Phase::checkpoint);
  PartWritten written;
  written.generation = generation_;
  written.step = trainer_->state().step;
  if (auto current = trainer_->bring_to_host(); !current) return current;
  auto files =
      checkpoint::write_part(trainer_->checkpoint_state(), {.root = checkpoints_of(folder_),
                                                            .generation = generation_.value,
                                                            .rank = group_.get()->rank(),
                                                            .ranks = group_.get()->size()});
  if (files) {
    for (const auto& file : *files) written.files.push_back({file.name, file.bytes, file.hash});
  } else {
    written.error = files.error().message;
  }
  sink(written);
  return {};
}

void TrainWork::leave(const Error& error, const EventSink& sink) {
  progress_.enter(training::Phase::idle);
  const std::uint64_t step = trainer_->state().step;
  if (const auto end = end_of_device(device_.get(), step)) return sink(*end);
  if (trainer_->job_failed()) return sink(end_of_job(error, step));
  TUTTI_LOG_INFO("rank", "generation {}: left: {}", generation_.value, error.message);
  const kernels::Communicator* const group = group_.get();
  const std::int32_t suspect =
      group != nullptr ? group->lost_peer() : group_.listener().lost_peer();
  const auto failure = group != nullptr ? failure_of_group(error.code) : wire::FailureClass::none;
  group_.end();  // the others see at once that this rank is out
  sink(GroupLeft{generation_, suspect, error.message, held(), failure});
}

Result<std::string> TrainWork::commit(const wire::CommitCheckpoint& order) {
  checkpoint::CommitOrder commit{.root = checkpoints_of(folder_),
                                 .step = order.step,
                                 .generation = order.generation.value,
                                 .files = {},
                                 .keep = order.keep,
                                 .in_use = order.in_use};
  for (const auto& file : order.files) commit.files.push_back({file.name, file.bytes, file.hash});
  auto folder = checkpoint::commit(commit);
  if (!folder) return folder.error();
  return folder->string();
}

}  // namespace

std::unique_ptr<Work> make_train_work() { return std::make_unique<TrainWork>(); }

}  // namespace tutti::rank
