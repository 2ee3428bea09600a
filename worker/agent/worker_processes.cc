// What WorkerHost does to begin and end processes.
//
//   StartProcess -> plan -> scout (program, folder; at once if it looked a moment ago) -> launch
//   death -> its group and strays ended -> output drained -> reaped -> ProcessExited
#include <signal.h>

#include <algorithm>
#include <set>

#include "protocol/base/log.h"
#include "worker/agent/worker_host.h"

namespace tutti::worker {

using namespace std::chrono_literals;

namespace {

// A file system that says nothing for so long does not answer.
constexpr Duration kScoutWithin = 10s;
// Orphans that end by themselves are reaped so often.
constexpr Duration kStraysPeriod = 1s;
// How old the last look at the kernel's counter may be when a process begins.
constexpr Duration kOomPeriod = 1s;
// Empty folders of programs that have ended are removed so often.
constexpr Duration kSweepPeriod = 2s;

wire::FailureClass blame_start(const Error& error, bool program) {
  const bool of_user = error.code == ErrorCode::not_found ||
                       error.code == ErrorCode::permission_denied ||
                       error.code == ErrorCode::invalid_argument;
  return program && of_user ? wire::FailureClass::user : wire::FailureClass::infrastructure;
}

// Of the environment that it was started with; empty: none, or it is gone.
std::string process_mark_of(pid_t pid) {
  constexpr std::uint64_t kBytesMax = std::uint64_t{4} << 20;
  const auto environment = read_file("/proc/" + std::to_string(pid) + "/environ", kBytesMax);
  if (!environment) return {};
  const std::string name = std::string(1, '\0') + kProcessMark + "=";
  const std::string text = std::string(1, '\0') + *environment;
  const auto at = text.find(name);
  if (at == std::string::npos) return {};
  const auto from = at + name.size();
  return text.substr(from, text.find('\0', from) - from);
}

}  // namespace

// Beginning
// ------------------------------------------------------------------------------------

Result<LaunchPlan> WorkerHost::plan(const StartProcess& effect) {
  if (!effect.group) {
    const bool alone = local_address_.empty() || is_loopback(local_address_);
    return plan_rank(settings_.plan, effect.start,
                     {.data_host = alone ? std::string() : local_address_,
                      .cores = cores_.take(effect.start.process, effect.start.threads),
                      .cpus = cores_.cpus()});
  }
  ProgramGroup group{.group = *effect.group,
                     .local_rank = effect.local_rank,
                     .local_size = effect.local_size,
                     .local_devices = effect.local_devices};
  if (group.group.addresses.empty()) {
    // Alone: a port of its own, which nobody else is given as long as it is held here.
    auto reserved = reserve_address("127.0.0.1");
    if (!reserved) return reserved.error();
    group.group.addresses = {reserved->address};
    addresses_[effect.start.process] = *std::move(reserved);
  }
  return plan_program(settings_.plan, specs_, effect.start, group);
}

PathScout::Question WorkerHost::question_of(const StartProcess& effect,
                                            const LaunchPlan& plan) const {
  const std::string folder = plan.folder.string();
  return {.command = plan.command,
          .environment = plan.environment,
          .folder = folder,
          .makes_folder = folder == effect.start.folder,
          .program = plan.program};
}

void WorkerHost::perform(const ReserveAddress& effect) {
  auto reserved = reserve_address(local_address_.empty() ? "127.0.0.1" : local_address_);
  if (!reserved) {
    feed(StartFailed{.process = effect.process,
                     .failure = wire::FailureClass::infrastructure,
                     .error = reserved.error().message});
    return;
  }
  const std::string address = reserved->address;
  addresses_[effect.process] = *std::move(reserved);
  feed(AddressReserved{.process = effect.process, .address = address});
}

void WorkerHost::perform(const StartProcess& effect) {
  const ProcessId id = effect.start.process;
  open_spool({.job = effect.start.job,
              .generation = effect.start.generation,
              .process = id,
              .rank = effect.start.rank});
  StartingProcess& starting = starting_[id];
  starting.effect = effect;
  starting.ticket = ++tickets_;
  auto planned = plan(effect);
  if (!planned) return fail_start(id, planned.error());
  starting.plan = *std::move(planned);
  PathScout::Question question = question_of(effect, starting.plan);
  if (const auto sight = scout_.known(question, monotonic_now())) return begin_as(id, *sight);
  scout(id, std::move(question));
}

void WorkerHost::scout(ProcessId process, PathScout::Question question) {
  const std::uint64_t ticket = starting_.at(process).ticket;
  const Result<> asked =
      scout_.look(std::move(question), [this, process, ticket](Result<PathScout::Sight> sight) {
        // A full mailbox loses the answer: its deadline ends the start.
        static_cast<void>(host_.tell([this, process, ticket, found = std::move(sight)] {
          on_scouted(process, ticket, found);
        }));
      });
  if (!asked) return fail_start(process, asked.error());
  host_.arm(kScoutWithin, [this, process, ticket] {
    const auto at = starting_.find(process);
    if (at == starting_.end() || at->second.ticket != ticket) return;
    scout_.abandon();
    const std::string folder = at->second.plan.folder.string();
    fail_start(process, {ErrorCode::deadline_exceeded,
                         "the file system of " +
                             (folder.empty() ? at->second.plan.command.front() : folder) +
                             " does not answer"});
  });
}

void WorkerHost::on_scouted(ProcessId process, std::uint64_t ticket,
                            const Result<PathScout::Sight>& sight) {
  const auto at = starting_.find(process);
  if (at == starting_.end() || at->second.ticket != ticket) return;
  if (!sight) return fail_start(process, sight.error());
  scout_.believe(question_of(at->second.effect, at->second.plan), sight->program, monotonic_now());
  begin_as(process, *sight);
}

void WorkerHost::begin_as(ProcessId process, const PathScout::Sight& sight) {
  LaunchPlan& plan = starting_.at(process).plan;
  plan.program = sight.program;
  if (sight.made_folder) {
    folders_.made(plan.folder.string(), process);
  } else {
    folders_.enter(plan.folder.string(), process);
  }
  begin(process);
}

void WorkerHost::fail_start(ProcessId process, const Error& error) {
  const auto at = starting_.find(process);
  const bool program = at->second.effect.group.has_value();
  starting_.erase(at);
  addresses_.erase(process);
  cores_.put_back(process);
  folders_.leave(process);
  append(process, wire::Stream::log, "[tutti: " + error.message + "]\n");
  feed(StartFailed{
      .process = process, .failure = blame_start(error, program), .error = error.message});
  spools_.rest(process);
}

Result<Launched> WorkerHost::launch_limited(ProcessId process, LaunchPlan plan,
                                            std::string& limits) {
  const wire::StartRank& order = starting_.at(process).effect.start;
  const Share share{.memory_bytes = order.memory_bytes, .cores = order.cores};
  auto group = limiter_.make(process, share);
  if (!group) return group.error();
  plan.group = *std::move(group);
  if (limiter_.hold() == Hold::rlimit) plan.data_bytes_max = share.memory_bytes;
  limits = limiter_.describe(share);
  auto launched = launch(plan);
  if (!launched) {
    limiter_.remove(plan.group);
  } else if (!plan.group.empty()) {
    plan.group.entrances.clear();
    groups_[process] = std::move(plan.group);
  }
  return launched;
}

void WorkerHost::begin(ProcessId process) {
  const Instant now = monotonic_now();
  if (now - oom_seen_at_ > kOomPeriod) {
    oom_kills_ = oom_kills();
    oom_seen_at_ = now;
  }
  addresses_.erase(process);  // from here on the program can bind it
  StartingProcess& starting = starting_.at(process);
  std::string limits;
  auto launched = launch_limited(process, std::move(starting.plan), limits);
  if (!launched) return fail_start(process, launched.error());
  const pid_t pid = launched->pid;
  auto& running = processes_[process];
  running = std::make_unique<RankProcess>(host_, *std::move(launched), handlers_of(process));
  const wire::StartRank& order = starting.effect.start;
  TUTTI_LOG_DEBUG("worker", "job {} generation {} rank {}: process {} is pid {}",
                  to_string(order.job), to_string(order.generation), order.rank, to_string(process),
                  pid);
  const std::vector<std::string> frames = std::move(starting.frames);
  starting_.erase(process);
  for (const std::string& frame : frames) static_cast<void>(running->send(frame));
  feed(ProcessStarted{.process = process, .pid = pid, .limits = std::move(limits)});
}

void WorkerHost::perform(const SignalProcess& effect) {
  if (starting_.contains(effect.process)) {
    // The scout may still be away with it: nothing was begun.
    return fail_start(effect.process, {ErrorCode::aborted, "stopped before its program began"});
  }
  const auto at = processes_.find(effect.process);
  if (at == processes_.end()) return;
  if (effect.scope == SignalScope::group) {
    signal_group(at->second->pid(), effect.signal);
  } else {
    ::kill(at->second->pid(), effect.signal);
  }
}

// Ending
// ---------------------------------------------------------------------------------------

RankProcess::Handlers WorkerHost::handlers_of(ProcessId process) {
  return {.on_frame = [this, process](std::string bytes) { on_rank_frame(process, bytes); },
          .on_unlinked =
              [this, process](const Error& reason) {
                feed(RankLinkLost{.process = process, .reason = reason.message});
              },
          .on_output = [this, process](
                           std::string_view bytes) { append(process, wire::Stream::log, bytes); },
          .on_dead = [this, process] { return end_strays(process); },
          .on_exit = [this, process](ExitStatus status) { on_exit(process, status); }};
}

ProcessExited WorkerHost::exit_of(ProcessId process, const ExitStatus& status) {
  ProcessExited out{.process = process,
                    .code = status.code,
                    .signal = status.signal,
                    .seen_unix_ms = wall_now().unix_ms,
                    .out_of_memory = false,
                    .memory_peak_bytes = status.memory_peak_bytes,
                    .cpu_ms = status.cpu_ms,
                    .log_tail = {}};
  const Spool* spool = spools_.find(process);
  if (spool != nullptr && (status.code != 0 || status.signal != 0)) {
    const std::uint64_t size = spool->log.size();
    const std::uint64_t tail = std::min<std::uint64_t>(size, wire::kLogTailBytes);
    out.log_tail = spool->log.read(size - tail, tail);
  }
  const auto group = groups_.find(process);
  if (group != groups_.end()) {
    const GroupUsage usage = limiter_.usage(group->second);
    out.memory_peak_bytes = std::max(out.memory_peak_bytes, usage.memory_peak_bytes);
    out.out_of_memory = usage.out_of_memory;
    limiter_.remove(group->second);
    groups_.erase(group);
  }
  const bool killed = status.signal == SIGKILL || status.code == 128 + SIGKILL;
  if (!killed || out.out_of_memory) return out;
  // Without a group of its own: the machine's counter tells whether the kernel ended something
  // since we looked last, at most a second before this process began or another was killed.
  const std::uint64_t before = std::exchange(oom_kills_, oom_kills());
  oom_seen_at_ = monotonic_now();
  out.out_of_memory = oom_kills_ > before;
  return out;
}

void WorkerHost::on_exit(ProcessId process, const ExitStatus& status) {
  TUTTI_LOG_DEBUG("worker", "process {} ended: code {}, signal {}", to_string(process), status.code,
                  status.signal);
  finish_spool(process);
  cores_.put_back(process);
  folders_.leave(process);
  feed(exit_of(process, status));
  spools_.rest(process);
  // It is calling us right now.
  const auto at = processes_.find(process);
  if (at == processes_.end()) return;
  host_.arm(Duration{0}, [old = std::shared_ptr<RankProcess>(std::move(at->second))] {});
  processes_.erase(at);
}

// Children that nobody here started: orphans of programs, which the kernel gave to us.
std::vector<pid_t> WorkerHost::strangers(std::vector<pid_t> all) const {
  if (all.size() <= processes_.size()) return {};
  std::set<pid_t> known;
  for (const auto& [id, process] : processes_) known.insert(process->pid());
  std::erase_if(all, [&](pid_t pid) { return known.contains(pid); });
  return all;
}

// Its group has been killed. Whatever left the group is our child by now, or a child of such; it
// goes unless it bears the mark of another living process. One look: whether nothing was there.
bool WorkerHost::end_strays(ProcessId process) {
  auto all = children();
  if (!all) {
    return end_marked({std::string(kWorkerMark) + "=" + settings_.plan.mark,
                       std::string(kProcessMark) + "=" + to_string(process)},
                      Duration::zero()) == 0;
  }
  bool left = false;
  for (const pid_t pid : strangers(*std::move(all))) {
    if (reap_orphan(pid)) continue;
    const std::string mark = process_mark_of(pid);
    const bool others = std::any_of(processes_.begin(), processes_.end(), [&](const auto& entry) {
      return entry.first != process && (mark.empty() || mark == to_string(entry.first));
    });
    if (others) continue;
    ::kill(pid, SIGKILL);
    left = true;
  }
  return !left;
}

// Not while a scout may be making folders.
void WorkerHost::sweep_folders() {
  const Instant now = monotonic_now();
  if (!folders_.has_left() || !starting_.empty() || now - swept_at_ < kSweepPeriod) return;
  swept_at_ = now;
  folders_.sweep(working_folders());
}

void WorkerHost::reap_strays() {
  const Instant now = monotonic_now();
  if (now - strays_at_ < kStraysPeriod) return;
  strays_at_ = now;
  for (const pid_t pid : strangers(children().value_or(std::vector<pid_t>{}))) reap_orphan(pid);
}

}  // namespace tutti::worker
