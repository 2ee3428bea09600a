#include "coordinator/cluster/desk.h"

#include <fmt/core.h>

#include <algorithm>
#include <type_traits>

#include "protocol/base/assert.h"
#include "protocol/base/rng.h"

namespace tutti::coordinator {

namespace {

// Sessions carry the milliseconds at which they began, then 20 bits of chance: newer ones are
// greater, and those of a successor whose clock was set back do not meet ours.
constexpr int kSessionChanceBits = 20;

std::uint64_t hexadecimal(std::string_view digits) {
  std::uint64_t value = 0;
  for (const char digit : digits) {
    const bool letter = digit >= 'a' && digit <= 'f';
    value = value << 4 | static_cast<std::uint64_t>(letter ? digit - 'a' + 10 : (digit - '0') & 15);
  }
  return value;
}

// The job that a fact is about, or none.
template <class T>
JobId job_in(const T& fact) {
  if constexpr (requires { fact.job; }) {
    return fact.job;
  } else {
    return {};
  }
}

// Of the facts that metrics count; those of earlier lives of the coordinator are not counted again.
template <class T>
void count(ClusterCounters&, const Durable&, const T&) {}
void count(ClusterCounters& counters, const Durable& durable, const JobSettled& fact) {
  const JobRecord* job = durable.job(fact.job);
  if (job == nullptr || fact.outcome.state != JobState::queued) return;
  if (job->release.cause == ReleaseCause::preempted) ++counters.preemptions;
  if (job->release.cause == ReleaseCause::drained) ++counters.drains;
}

// The workers whose free room the fact changes.
template <class T>
void stir_workers(Desk& desk, const T& fact) {
  std::set<std::string>& stirred = desk.board.stirred_workers;
  if constexpr (std::is_same_v<T, WorkerJoined>) {
    stirred.insert(fact.worker.worker);
  } else if constexpr (requires { fact.worker; }) {
    stirred.insert(fact.worker);
  }
  if constexpr (requires { fact.process; }) {
    if (const ProcessRecord* process = desk.durable.process(fact.process)) {
      stirred.insert(process->worker);
      desk.board.stirred_jobs.insert(process->job);
    }
  }
  // Begun or gone, it does not stand in line any more.
  if constexpr (std::is_same_v<T, ProcessStarted> || std::is_same_v<T, ProcessEnded>) {
    desk.board.lined_up.erase(fact.process);
  }
  if constexpr (requires { fact.gang; }) {
    for (const Placement& each : fact.gang) stirred.insert(each.worker);
  }
  if constexpr (requires { fact.newcomers; }) {
    for (const Placement& each : fact.newcomers) stirred.insert(each.worker);
  }
  if constexpr (requires { fact.array; }) desk.board.stirred_jobs.insert(fact.array);
}

}  // namespace

void Desk::record(Fact fact) {
  std::visit([this](const auto& each) { count(counters, durable, each); }, fact);
  std::visit([this](const auto& each) { stir_workers(*this, each); }, fact);
  durable.apply(fact);
  const JobId job = std::visit([](const auto& each) { return job_in(each); }, fact);
  if (job) touch(job);
  decision.facts.push_back(std::move(fact));
}

void Desk::note(Event event) {
  event.seq = ++last_event;
  event.unix_ms = wall.unix_ms;
  decision.events.push_back(std::move(event));
}

void Desk::refuse(RequestId request, ErrorCode code, std::string message) {
  decision.immediate.push_back(Answer{.request = request, .body = Error{code, std::move(message)}});
}

std::string Desk::full_disk() const {
  if (ledger_failure.empty()) return {};
  return "the coordinator cannot write to its disk: " + ledger_failure;
}

std::string Desk::fresh_secret() {
  TUTTI_ASSERT(random.size() >= 32);
  return fmt::format("{}{:x}", random, random_used++);
}

double Desk::fresh_share() {
  TUTTI_ASSERT(random.size() >= 32);
  // The last digits, with what was drawn before, so that two draws of one decision differ.
  const std::uint64_t chance = Rng(hexadecimal(random.substr(16, 16)) + random_used++).next();
  constexpr int kBits = 53;  // of a double
  return static_cast<double>(chance >> (64 - kBits)) / static_cast<double>(1ULL << kBits);
}

SessionId Desk::fresh_session() {
  const std::uint64_t chance = hexadecimal(std::string_view(random).substr(0, 16));
  const std::uint64_t begun = static_cast<std::uint64_t>(wall.unix_ms) << kSessionChanceBits;
  const std::uint64_t wanted = begun | (chance & ((std::uint64_t{1} << kSessionChanceBits) - 1));
  last_session = wanted > last_session ? wanted : last_session + 1;
  return SessionId{last_session};
}

const JobRecord& Desk::job(JobId id) const {
  const JobRecord* found = durable.job(id);
  TUTTI_ASSERT(found != nullptr);
  return *found;
}

WorkerLink* Desk::link_of(const ProcessRecord& process) {
  const auto at = links.find(process.worker);
  return at == links.end() || !at->second.open ? nullptr : &at->second;
}

Sequence Desk::order(WorkerLink& link, wire::ToWorker message) {
  stirred_links.insert(link.worker);
  const Result<Sequence> number = link.orders.push(std::move(message));
  if (number) return *number;
  link.disconnected = now;
  stir_link(link.worker);
  return {};
}

std::string describe(const JobRecord& job, const ProcessRecord& process) {
  return fmt::format("rank {} of {} on {}", process.rank, job.size, process.worker);
}

Instant due_after(const Desk& desk, std::int64_t since_unix_ms, std::uint64_t limit_ms) {
  constexpr std::uint64_t kLimitMsMax = std::uint64_t{1} << 53;
  const auto limit = static_cast<std::int64_t>(std::min(limit_ms, kLimitMsMax));
  const std::int64_t left = limit - (desk.wall.unix_ms - since_unix_ms);
  return desk.now + std::chrono::milliseconds(std::clamp<std::int64_t>(left, 0, limit));
}

bool may_be_told_again(Desk& desk, JobId job, RequestId request) {
  // More than a client sends by itself.
  constexpr std::size_t kRequestsMax = 64;
  const auto soft = desk.jobs.find(job);
  if (soft == desk.jobs.end() || soft->second.decision <= desk.durable_through) return true;
  if (soft->second.requests.size() >= kRequestsMax) return false;
  soft->second.requests.push_back(request);
  return true;
}

bool have_said_all(Desk& desk, const JobRecord& job) {
  for (const ProcessId member : job.members) {
    const ProcessRecord* process = desk.durable.process(member);
    const WorkerLink* link = process == nullptr ? nullptr : desk.link_of(*process);
    if (link != nullptr && link->reports.taken().value < link->reports_announced) return false;
  }
  return true;
}

}  // namespace tutti::coordinator
