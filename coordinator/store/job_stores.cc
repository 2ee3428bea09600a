#include "coordinator/store/job_stores.h"

#include <algorithm>
#include <charconv>
#include <future>
#include <iterator>
#include <set>
#include <thread>
#include <utility>

#include "protocol/base/clock.h"
#include "protocol/base/log.h"

namespace tutti::coordinator {

namespace {

constexpr std::size_t kLogPageBytes = std::size_t{1} << 20;
constexpr std::size_t kStepsPerPage = 2000;

std::vector<JobId> numbered_folders(const std::filesystem::path& folder) {
  std::vector<JobId> out;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failed)) {
    const std::string name = entry.path().filename().string();
    std::uint64_t id = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), id);
    if (parsed.ec == std::errc() && parsed.ptr == name.data() + name.size()) out.emplace_back(id);
  }
  return out;
}

std::filesystem::path beside(const std::filesystem::path& records) {
  return records.string() + ".replaced";
}

}  // namespace

JobStores::JobStores(actor::Runtime& runtime, std::filesystem::path jobs,
                     std::filesystem::path job_folders, Notices& notices)
    : host_(runtime, {.name = "stores", .mailbox_max = 2 * kPendingMax}),
      jobs_(std::move(jobs)),
      job_folders_(std::move(job_folders)),
      notices_(notices) {}

JobStores::~JobStores() = default;

std::filesystem::path JobStores::folder_of(JobId job) const {
  return jobs_ / to_string(job) / "records";
}

Result<JobStores::Records*> JobStores::open(JobId job, Missing missing) {
  if (const auto found = open_.find(job); found != open_.end()) {
    Records& records = *found->second;
    used_.splice(used_.begin(), used_, records.place);
    if (std::exchange(records.rests, false)) resting_steps_ -= records.steps.in_memory();
    return &records;
  }
  const std::filesystem::path folder = folder_of(job);
  std::error_code failed;
  if (!std::filesystem::is_directory(folder, failed)) {
    if (missing == Missing::refuse)
      return Error{ErrorCode::not_found, "nothing is stored of job " + to_string(job)};
    std::filesystem::create_directories(folder, failed);
    // A worker here removes the job's folder while it is empty (decision 0045).
    if (failed) std::filesystem::create_directories(folder, failed);
    if (failed) return errno_error("cannot make " + folder.string(), failed.value());
  }
  ++scans_;
  Result<LogStore> log = LogStore::open(folder);
  if (!log) return log.error();
  Result<StepStore> steps = StepStore::open(folder);
  if (!steps) return steps.error();
  auto& slot = open_[job];
  slot = std::make_unique<Records>(Records{*std::move(log), *std::move(steps)});
  used_.push_front(job);
  slot->place = used_.begin();
  return slot.get();
}

void JobStores::close(JobId job) {
  const auto found = open_.find(job);
  if (found == open_.end()) return;
  if (found->second->rests) resting_steps_ -= found->second->steps.in_memory();
  used_.erase(found->second->place);
  open_.erase(found);
}

// Those that were used since the last time are in front of those that rest.
void JobStores::trim() {
  if (open_.size() <= kOpenJobsMax) return;
  for (auto at = std::next(used_.begin(), kOpenJobsMax); at != used_.end(); ++at) {
    Records& records = *open_.at(*at);
    if (std::exchange(records.rests, true)) break;
    records.log.rest();
    records.steps.rest();
    resting_steps_ += records.steps.in_memory();
  }
  while (open_.size() > kKnownJobsMax ||
         (open_.size() > kOpenJobsMax && resting_steps_ > kKnownStepsMax)) {
    close(used_.back());
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

JobStores::Taken JobStores::take(const wire::SpoolData& data) {
  const Result<Records*> records = open(data.job, Missing::make);
  if (!records) return {.outcome = records.error()};
  StoreOutcome outcome;
  outcome.ack.process = data.process;
  outcome.ack.stream = data.stream;
  bool known = false;
  if (data.stream == wire::Stream::log) {
    const Result<SpoolTaken> taken = (*records)->log.append(data);
    if (!taken) return {.outcome = taken.error()};
    outcome.ack.offset = taken->offset;
    outcome.ack.end = taken->end;
    known = taken->known;
  } else {
    Result<StepsTaken> taken =
        (*records)->steps.append(data.bytes, {.process = data.process, .rank = data.rank});
    if (!taken) return {.outcome = taken.error()};
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
  const bool log_ended = (*records)->log.has_ended(data.process);
  return {.outcome = std::move(outcome), .log_ended = log_ended, .known = known};
}

// A process is forgotten with the end of its second stream: one that is sent again must not bring
// it back.
void JobStores::note_end(const wire::SpoolData& data, const Taken& taken) {
  const std::lock_guard lock(streams_guard_);
  const auto of_job = streams_.find(data.job);
  const bool expected = of_job != streams_.end() && of_job->second.contains(data.process);
  if (!expected && taken.known) return;
  std::map<ProcessId, Ended>& processes = streams_[data.job];
  Ended& ended = processes[data.process];
  ended.log = ended.log || taken.log_ended;
  ended.steps = ended.steps || data.stream == wire::Stream::steps;
  if (!ended.log || !ended.steps) return;
  processes.erase(data.process);
  if (processes.empty()) streams_.erase(data.job);
}

// Folders that a job's first record made, or an earlier coordinator that may have died before it
// had synced them. After the files: what a file system commits with those costs little then.
void JobStores::name_folders(std::map<JobId, Result<>>& synced) {
  std::vector<std::pair<Records*, Result<>*>> made;
  for (auto& [job, result] : synced) {
    const auto records = open_.find(job);
    if (!result || records == open_.end() || records->second->named) continue;
    result = sync_folder(jobs_ / to_string(job));
    if (result) made.emplace_back(records->second.get(), &result);
  }
  if (made.empty()) return;
  const Result<> around = sync_folder(jobs_);
  for (auto& [records, result] : made) {
    records->named = around.ok();
    if (!around) *result = around;
  }
}

void JobStores::flush() {
  std::vector<Pending> batch;
  {
    const std::lock_guard lock(pending_guard_);
    batch.swap(pending_);
  }
  std::vector<Taken> all;
  std::map<JobId, Result<>> synced;
  for (const Pending& pending : batch) {
    all.push_back(take(pending.data));
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
  name_folders(synced);
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const wire::SpoolData& data = batch[i].data;
    const Result<>& sync = synced.at(data.job);
    Result<StoreOutcome>& outcome = all[i].outcome;
    if (outcome && !sync) outcome = sync.error();
    if (outcome && outcome->ack.end) note_end(data, all[i]);
    batch[i].done(std::move(outcome));
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
  static_cast<void>(host_.tell([this, first, more] { remove_tasks(first, 0, more); }));
}

// The array itself last: folders of tasks lie in its own.
void JobStores::remove_tasks(JobId array, std::uint32_t next, std::uint32_t count) {
  const std::uint32_t end = next + std::min(count - next, kForgottenPerTurn);
  std::error_code stays;
  for (; next < end; ++next) {
    std::filesystem::remove(job_folders_ / to_string(array) / std::to_string(next), stays);
    remove(JobId{array.value + 1 + next});
  }
  if (next == count) return remove(array);
  host_.arm(Duration::zero(), [this, array, next, count] { remove_tasks(array, next, count); });
}

void JobStores::forget_all(std::vector<JobId> jobs) {
  static_cast<void>(host_.tell([this, jobs = std::move(jobs)] {
    for (const JobId job : jobs) remove(job);
  }));
}

std::vector<JobId> JobStores::jobs_on_disk() const { return numbered_folders(jobs_); }

JobId JobStores::newest_left() const {
  JobId newest;
  for (const JobId job : jobs_on_disk()) newest = std::max(newest, job);
  if (job_folders_ == jobs_) return newest;
  // The thread is left behind where a network's disk hangs.
  std::packaged_task<std::vector<JobId>()> look(
      [folders = job_folders_] { return numbered_folders(folders); });
  std::future<std::vector<JobId>> found = look.get_future();
  std::thread(std::move(look)).detach();
  if (found.wait_for(kLookMax) != std::future_status::ready) {
    TUTTI_LOG_WARNING("stores", "{} does not answer; folders of an earlier journal are not seen",
                      job_folders_.string());
    return newest;
  }
  for (const JobId job : found.get()) newest = std::max(newest, job);
  return newest;
}

void JobStores::set_aside(JobId job) const {
  const std::filesystem::path records = folder_of(job);
  std::error_code failed;
  if (!std::filesystem::exists(records, failed)) return;
  const std::filesystem::path kept = beside(records);
  std::filesystem::remove_all(kept, failed);
  std::filesystem::rename(records, kept, failed);
  if (failed) TUTTI_LOG_WARNING("stores", "cannot move {}: {}", records.string(), failed.message());
}

void JobStores::bring_back(JobId job) const {
  const std::filesystem::path records = folder_of(job);
  std::error_code none;
  if (!std::filesystem::exists(records, none))
    std::filesystem::rename(beside(records), records, none);
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
  // What its ranks or programs left stays.
  const std::filesystem::path own = job_folders_ / to_string(job);
  std::filesystem::remove(own / "checkpoints", failed);
  std::filesystem::remove(own, failed);
  std::filesystem::remove(jobs_ / to_string(job), failed);
  notices_.publish(job);
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

std::size_t JobStores::jobs_with_streams() const {
  const std::lock_guard lock(streams_guard_);
  return streams_.size();
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
