// The worker's processes and what they wrote.
#include <algorithm>
#include <iterator>
#include <utility>

#include "tests/simulation/cluster/sim_worker.h"

namespace tutti::simulation {

namespace {

constexpr std::int32_t kKill = 9;
constexpr std::int32_t kContinue = 18;
constexpr std::int32_t kStop = 19;
constexpr std::uint64_t kHoleBytes = 64;
// Nobody ends one that hangs but its user (limit.time), so it goes on by itself.
constexpr Duration kProgramHangs = 8s;

}  // namespace

void SimWorker::perform(const worker::SendToRank& effect) {
  later(100us, [this, effect] {
    const auto at = processes_.find(effect.process);
    if (at != processes_.end()) at->second.rank->on(effect.message);
  });
}

void SimWorker::perform(const worker::ReserveAddress& effect) {
  later(1ms, [this, effect] {
    on(worker::AddressReserved{.process = effect.process, .address = options_.name + ":1"});
  });
}

void SimWorker::perform(const worker::StartProcess& effect) {
  const ProcessId id = effect.start.process;
  if (processes_.contains(id)) {
    return world_.violate("I6", "process " + to_string(id) + " is started twice");
  }
  check_device(effect.start);
  spools_[id].start = effect.start;
  if (effect.group && options_.refuses_programs) {
    world_.reached("a program could not be started");
    const bool hides = world_.breaks(Mutation::hide_refusal);
    // Who has no other node to be tried on may be charged; whoever must be done fails by that.
    if (!hides) ++ranks_.history[effect.start.job].user_failures;
    return later(1ms, [this, id, hides] {
      // As if it had run and said so itself.
      if (hides) {
        return on(
            worker::ProcessExited{.process = id, .code = 127, .signal = 0, .seen_unix_ms = 0});
      }
      on(worker::StartFailed{
          .process = id, .failure = wire::FailureClass::user, .error = "there is no such program"});
    });
  }
  Process& process = processes_[id];
  process.rank = std::make_unique<SimRank>(
      ranks_, effect.start,
      SimRank::Doors{
          .say =
              [this, id](const wire::FromRank& message) {
                later(100us, [this, id, message] { spoke(id, message); });
              },
          .print = [this, id](const std::string& text) { print(id, text); },
          .exit = [this, id](std::int32_t code, std::int32_t signal) { exited(id, code, signal); },
          .machine = options_.name,
          .heeded =
              [this, id] {
                if (!state_ || !state_->joined() || is_cut() || stopping_) return false;
                const auto at = processes_.find(id);
                return at != processes_.end() && !at->second.ordered;
              }});
  process.rank->slow_down(slowness_);
  on(worker::ProcessStarted{.process = id, .pid = static_cast<std::int64_t>(id.value) + 1000});
  if (effect.group) process.rank->run_program(effect.group->generation);
}

// A rank computes in its job's profile, on the device that goes with its slot.
void SimWorker::check_device(const wire::StartRank& start) {
  const std::string who = "process " + to_string(start.process) + " of " + options_.name;
  if (start.device != device_of(start.slot)) {
    world_.violate(
        "I6", who + " was leased " + start.device + " with slot " + std::to_string(start.slot));
  }
  if (start.kind != "train") return;
  if (start.profile != options_.profile) {
    world_.violate("fit",
                   who + " is to compute in " + start.profile + ", and has " + options_.profile);
  }
  if (start.profile != "portable") world_.reached("a training job had a GPU's numerics profile");
}

void SimWorker::spoke(ProcessId id, const wire::FromRank& message) {
  if (world_.breaks(Mutation::swallow_finish) &&
      std::holds_alternative<wire::RankFinished>(message)) {
    return;
  }
  const auto at = processes_.find(id);
  if (at != processes_.end() && std::holds_alternative<wire::RankReady>(message)) {
    at->second.was_ready = true;
  }
  on(worker::RankSpoke{.process = id, .message = message});
}

void SimWorker::print(ProcessId id, const std::string& text) {
  std::string& log = spools_[id].log;
  log += text;
  later(100us, [this, id, size = log.size()] {
    on(worker::SpoolGrew{.process = id, .stream = wire::Stream::log, .size = size});
  });
}

void SimWorker::exited(ProcessId id, std::int32_t code, std::int32_t signal) {
  // What it said before comes first.
  later(2ms, [this, id, code, signal] {
    on(worker::SpoolGrew{
        .process = id, .stream = wire::Stream::log, .size = spools_[id].log.size()});
    on(worker::ProcessExited{.process = id, .code = code, .signal = signal, .seen_unix_ms = 0});
    processes_.erase(id);
  });
}

// I10: silence of the coordinator ends no healthy rank, and a program only after stop_after.
void SimWorker::check_signal(const worker::SignalProcess& effect, Process& process) {
  if (process.ordered || stopping_ || effect.signal == kContinue) return;
  const std::string who = "process " + to_string(effect.process) + " of " + options_.name;
  if (process.rank->is_program()) {
    const std::chrono::milliseconds stop_after(process.rank->start().stop_after_ms);
    if (world_.now() - heard_ < stop_after) {
      world_.violate("I10", who + ", a program, was ended before stop_after was over");
    }
    world_.reached("a program was ended because the coordinator was silent");
    // What follows is the same stop.
    process.ordered = true;
    process.silenced = true;
    return;
  }
  if (process.was_ready) world_.violate("I10", who + " was ended and nobody had ordered it");
}

void SimWorker::perform(const worker::SignalProcess& effect) {
  const auto at = processes_.find(effect.process);
  if (at == processes_.end()) return;
  check_signal(effect, at->second);
  if (world_.breaks(Mutation::outlive_silence) && at->second.silenced) return;
  // Programs that were small enough to go before others.
  const bool small = at->second.rank->start().name.starts_with("small");
  if (small && world_.breaks(Mutation::outlive_limit)) return;
  if (world_.breaks(Mutation::report_exit_early)) {
    // Its slot is said to be free while it still runs.
    later(0ms, [this, id = effect.process] {
      on(worker::ProcessExited{.process = id, .code = 0, .signal = kKill, .seen_unix_ms = 0});
    });
    later(900ms, [this, id = effect.process] {
      const auto late = processes_.find(id);
      if (late != processes_.end()) late->second.rank->signal(kKill);
    });
    return;
  }
  at->second.rank->signal(effect.signal);
}

void SimWorker::perform(const worker::ReleaseProcess& effect) {
  spools_[effect.process].released = true;
}

void SimWorker::perform(const worker::AppendSpool& effect) {
  SimSpool& spool = spools_[effect.process];
  std::string& stream = effect.stream == wire::Stream::log ? spool.log : spool.steps;
  stream += effect.bytes;
  later(0ms, [this, effect, size = stream.size()] {
    on(worker::SpoolGrew{.process = effect.process, .stream = effect.stream, .size = size});
  });
}

void SimWorker::perform(const worker::SyncSteps& effect) {
  if (world_.breaks(Mutation::lose_steps)) return;
  if (forming_ && world_.breaks(Mutation::copy_unsynced)) return;
  for (auto& [id, spool] : spools_) {
    if (spool.start.job == effect.job) spool.synced_steps = spool.steps.size();
  }
}

void SimWorker::perform(const worker::ReadSpool& effect) {
  soon(100us, [this, effect] {
    const SimSpool& spool = spools_[effect.process];
    const bool log = effect.stream == wire::Stream::log;
    const std::string& stream = log ? spool.log : spool.steps;
    if (effect.offset < (log ? spool.truncated_log : spool.truncated_steps)) {
      world_.reached("a worker read a hole of a spool");
    }
    std::string bytes;
    if (effect.offset < stream.size()) bytes = stream.substr(effect.offset, effect.bytes_max);
    // What was given back to the file system reads as zeros.
    const std::uint64_t hole = log ? spool.truncated_log : spool.truncated_steps;
    for (std::uint64_t at = effect.offset; at < hole && at - effect.offset < bytes.size(); ++at) {
      bytes[at - effect.offset] = '\0';
    }
    on(worker::SpoolRead{.process = effect.process,
                         .stream = effect.stream,
                         .offset = effect.offset,
                         .bytes = std::move(bytes)});
  });
}

void SimWorker::perform(const worker::TruncateSpool& effect) {
  SimSpool& spool = spools_[effect.process];
  std::uint64_t& hole =
      effect.stream == wire::Stream::log ? spool.truncated_log : spool.truncated_steps;
  // Small pieces are not worth a hole.
  if (effect.offset >= hole + kHoleBytes) hole = effect.offset;
}

SimRank* SimWorker::choose_rank(std::uint64_t choice) {
  if (processes_.empty()) return nullptr;
  auto at = processes_.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(choice % processes_.size()));
  return at->second.rank.get();
}

JobId SimWorker::kill_rank(std::uint64_t choice) {
  SimRank* rank = choose_rank(choice);
  if (rank == nullptr) return {};
  const JobId job = rank->start().job;
  world_.trace("a rank on " + options_.name + " is killed");
  rank->signal(kKill);
  return job;
}

JobId SimWorker::hang_rank(std::uint64_t choice, Duration time) {
  SimRank* rank = choose_rank(choice);
  if (rank == nullptr) return {};
  const JobId job = rank->start().job;
  if (rank->is_program()) time = std::min<Duration>(time, kProgramHangs);
  world_.trace("a rank on " + options_.name + " hangs");
  rank->signal(kStop);
  later(time, [this, id = rank->start().process] {
    const auto at = processes_.find(id);
    if (at != processes_.end()) at->second.rank->signal(kContinue);
  });
  return job;
}

std::map<std::uint32_t, int> SimWorker::slots_in_use() const {
  std::map<std::uint32_t, int> out;
  for (const auto& [id, process] : processes_) {
    if (process.rank->alive()) ++out[process.rank->start().slot];
  }
  return out;
}

std::set<JobId> SimWorker::jobs_here() const {
  std::set<JobId> out;
  for (const auto& [id, process] : processes_) {
    if (process.rank->alive()) out.insert(process.rank->start().job);
  }
  return out;
}

}  // namespace tutti::simulation
