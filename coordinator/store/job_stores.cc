#include "coordinator/store/job_stores.h"

#include <algorithm>
#include <set>
#include <utility>

#include "protocol/base/clock.h"
#include "protocol/base/log.h"

namespace tutti::coordinator {

namespace {

constexpr std::size_t kLogPageBytes = std::size_t{1} << 20;
constexpr std::size_t kStepsPerPage = 2000;

}  // namespace

JobStores::JobStores(actor::Runtime& runtime, std::filesystem::path jobs, Notices& notices)
    : host_(runtime, {.name = "stores", .mailbox_max = 2 * kPendingMax}),
      jobs_(std::move(jobs)),
      notices_(notices) {}

JobStores::~JobStores() = default;

std::filesystem::path JobStores::folder_of(JobId job) const {
  return jobs_ / to_string(job) / "records";
}

Result<JobStores::Records*> JobStores::open(JobId job, Missing missing) {
  if (const auto found = open_.find(job); found != open_.end()) {
    used_.remove(job);
    used_.push_front(job);
    return found->second.get();
  }
  const std::filesystem::path folder = folder_of(job);
  std::error_code failed;
  if (!std::filesystem::is_directory(folder, failed)) {
    if (missing == Missing::refuse)
      return Error{ErrorCode::not_found, "nothing is stored of job " + to_string(job)};
    std::filesystem::create_directories(folder, failed);
    if (failed) return errno_error("cannot make " + folder.string(), failed.value());
  }
  Result<LogStore> log = LogStore::open(folder);
  if (!log) return log.error();
  Result<StepStore> steps = StepStore::open(folder);
  if (!steps) return steps.error();
  auto& slot = open_[job];
  slot = std::make_unique<Records>(Records{*std::move(log), *std::move(steps)});
  used_.push_front(job);
  return slot.get();
}

void JobStores::close(JobId job) {
  open_.erase(job);
  used_.remove(job);
}

void JobStores::trim() {
  while (open_.size() > kOpenJobsMax) {
    open_.erase(used_.back());
    used_.pop_back();
  }
}

Result<> JobStores::store(wire::SpoolData data, Done done) {
  const std::lock_guard lock(pending_guard_);
  if (pending_.size() >= kPendingMax)
    return Error{ErrorCode::exhausted, "too much waits to be stored"};
  if (pending_.empty()) {
    if (Result<> told = host_.tell([this] { flush(); }); !told) return told;
  }
  pending_.push_back({std::move(data), std::move(done)});
  return {};
}

Result<StoreOutcome> JobStores::take(const wire::SpoolData& data) {
  const Result<Records*> records = open(data.job, Missing::make);
  if (!records) return records.error();
  StoreOutcome outcome;
  outcome.ack.process = data.process;
  outcome.ack.stream = data.stream;
  if (data.stream == wire::Stream::log) {
    const Result<SpoolTaken> taken = (*records)->log.append(data);
    if (!taken) return taken.error();
    outcome.ack.offset = taken->offset;
    outcome.ack.end = taken->end;
  } else {
    Result<StepsTaken> taken =
        (*records)->steps.append(data.bytes, {.process = data.process, .rank = data.rank});
    if (!taken) return taken.error();
    // Records say themselves which step they are, so no offset needs to be remembered to keep each
    // once.
    outcome.ack.offset = data.offset + data.bytes.size();
    outcome.ack.end = data.end;
    outcome.steps = *std::move(taken);
    if (outcome.steps.count > 0) {
      const std::lock_guard lock(figures_guard_);
      figures_[data.job] = (*records)->steps.figures();
    }
  }
  return outcome;
}

void JobStores::flush() {
  std::vector<Pending> batch;
  {
    const std::lock_guard lock(pending_guard_);
    batch.swap(pending_);
  }
  std::vector<Result<StoreOutcome>> outcomes;
  std::map<JobId, Result<>> synced;
  for (const Pending& pending : batch) {
    outcomes.push_back(take(pending.data));
    synced.emplace(pending.data.job, Result<>{});
  }
  for (auto& [job, result] : synced) {
    const Result<Records*> records = open(job, Missing::make);
    if (!records) {
      result = records.error();
      continue;
    }
    result = (*records)->log.sync();
    if (result) result = (*records)->steps.sync();
    // The files have lost what this batch added, so what was taken for known is not.
    if (!result) close(job);
  }
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const wire::SpoolData& data = batch[i].data;
    const Result<>& sync = synced.at(data.job);
    if (outcomes[i] && !sync) outcomes[i] = sync.error();
    if (outcomes[i] && outcomes[i]->ack.end) {
      const std::lock_guard lock(streams_guard_);
      Ended& ended = streams_[data.job][data.process];
      (data.stream == wire::Stream::log ? ended.log : ended.steps) = true;
    }
    batch[i].done(std::move(outcomes[i]));
  }
  for (const auto& [job, result] : synced) notices_.publish(job);
  trim();  // not before: what is closed here has been synced
}

void JobStores::expect(JobId job, ProcessId process) {
  const std::lock_guard lock(streams_guard_);
  streams_[job].try_emplace(process);
}

void JobStores::expect_nothing(JobId job, ProcessId process) {
  {
    const std::lock_guard lock(streams_guard_);
    const auto found = streams_.find(job);
    if (found == streams_.end() || found->second.erase(process) == 0) return;
    if (found->second.empty()) streams_.erase(found);
  }
  notices_.publish(job);
}

void JobStores::forget(JobId first, std::uint32_t more) {
  static_cast<void>(host_.tell([this, first, more] {
    for (std::uint64_t job = first.value; job <= first.value + more; ++job) remove(JobId{job});
  }));
}

void JobStores::remove(JobId job) {
  close(job);
  {
    const std::lock_guard lock(streams_guard_);
    streams_.erase(job);
  }
  {
    const std::lock_guard lock(figures_guard_);
    figures_.erase(job);
  }
  std::error_code failed;
  std::filesystem::remove_all(folder_of(job), failed);
  if (failed)
    TUTTI_LOG_WARNING("stores", "cannot remove {}: {}", folder_of(job).string(), failed.message());
  notices_.forget(job);
}

Result<LogPage> JobStores::read_log(JobId job, std::uint64_t after,
                                    std::optional<std::uint32_t> rank) {
  const Result<Records*> records = open(job, Missing::refuse);
  if (!records) return records.error();
  Result<LogPage> page = (*records)->log.read(after, rank, kLogPageBytes);
  trim();
  return page;
}

Result<StepsRead> JobStores::read_steps(JobId job, std::uint64_t after) {
  const Result<Records*> records = open(job, Missing::refuse);
  if (!records) return records.error();
  Result<StepsRead> read = (*records)->steps.read(after, kStepsPerPage, monotonic_now());
  trim();
  return read;
}

std::map<JobId, StepFigures> JobStores::figures() const {
  const std::lock_guard lock(figures_guard_);
  return figures_;
}

bool JobStores::streams_ended(JobId job) {
  {
    const std::lock_guard lock(streams_guard_);
    const auto found = streams_.find(job);
    const bool open =
        found != streams_.end() &&
        std::any_of(found->second.begin(), found->second.end(),
                    [](const auto& entry) { return !entry.second.log || !entry.second.steps; });
    if (open) return false;
  }
  const Result<Records*> records = open(job, Missing::refuse);
  return !records || (*records)->log.all_ended();
}

}  // namespace tutti::coordinator
