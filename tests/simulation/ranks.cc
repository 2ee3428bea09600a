#include "tests/simulation/ranks.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace tutti::simulation {

namespace {

constexpr std::uint64_t kInitialValue = 1;

std::uint64_t next_value(std::uint64_t value, std::uint64_t step) {
  return Rng(value * 31 + step).next();
}

}  // namespace

std::uint64_t value_at(std::uint64_t step) {
  std::uint64_t value = kInitialValue;
  for (std::uint64_t each = 1; each <= step; ++each) value = next_value(value, each);
  return value;
}

Rank::Rank(RankWorld& shared, wire::StartRank start, Say say, Exit exit)
    : shared_(shared),
      start_(std::move(start)),
      say_(std::move(say)),
      exit_(std::move(exit)),
      generation_(start_.generation),
      rank_(start_.rank),
      size_(start_.size) {}

Rank::~Rank() {
  *exists_ = false;
  leave_group();
  shared_.programs[start_.job].erase(start_.process);
}

void Rank::later(Duration delay, std::function<void()> action) {
  shared_.world.after(delay, [this, exists = exists_, action = std::move(action)] {
    if (*exists && alive_ && !hung_) action();
  });
}

void Rank::in_group(Duration delay, std::function<void()> action) {
  later(delay, [this, generation = generation_, action = std::move(action)] {
    if (in_group_ && generation == generation_) action();
  });
}

void Rank::say(wire::FromRank message) {
  if (alive_ && !hung_) say_(message);
}

Group* Rank::group() {
  const auto at = shared_.groups.find({start_.job, generation_});
  return at == shared_.groups.end() ? nullptr : &at->second;
}

void Rank::on(const wire::ToRank& order) {
  if (!alive_ || hung_) return;
  std::visit([this](const auto& each) { handle(each); }, order);
}

void Rank::handle(const wire::StartRank&) {
  later(shared_.world.some(20ms, 150ms), [this] { ready(); });
}

void Rank::ready() {
  say(wire::RankReady{.job = start_.job,
                      .generation = generation_,
                      .process = start_.process,
                      .rank = rank_,
                      .address = "rank-" + to_string(start_.process),
                      .held = held_});
}

void Rank::handle(const wire::Regroup& order) {
  if (order.generation <= generation_) return;
  leave_group();
  generation_ = order.generation;
  rank_ = order.rank;
  size_ = order.size;
  raised_ = {};
  later(shared_.world.some(1ms, 20ms), [this, generation = generation_] {
    if (generation == generation_) ready();
  });
}

void Rank::handle(const wire::FormGroup& order) {
  if (order.generation != generation_ || in_group_) return;
  if (order.addresses.size() != size_) {
    shared_.world.violate("I4", "a group of " + std::to_string(order.addresses.size()) +
                                    " ranks is formed where " + std::to_string(size_) + " belong");
  }
  form_ = order;
  in_group_ = true;
  first_step_said_ = false;
  Group& mine = shared_.groups[{start_.job, generation_}];
  mine.size = size_;
  mine.members[rank_] = this;
  if (mine.members.size() < mine.size) return;
  Generation& newest = shared_.newest_formed[start_.job];
  if (generation_ < newest) {
    shared_.world.violate(
        "I3", "generation " + to_string(generation_) + " forms after " + to_string(newest));
  }
  newest = generation_;
  mine.connected = true;
  mine.step = order.base_step + 1;
  for (const auto& [rank, member] : mine.members) {
    member->in_group(shared_.world.some(1ms, 30ms), [member = member] { member->form(); });
  }
}

void Rank::handle(const wire::SetFlags& order) {
  if (order.generation == generation_ && in_group_) raised_.add({order.save, order.stop});
}

void Rank::stand_at(const wire::FormGroup& order) {
  const std::uint64_t base = order.base_step;
  if (held_.whole && held_.step == base) return;
  if (held_.whole && held_.pending == base && base != 0) {
    value_ = next_value(value_, base);
    held_ = {.whole = true, .step = base, .pending = 0};
    return;
  }
  for (const wire::StateCopy& copy : order.copies) {
    if (copy.to != rank_) continue;
    const Group* mine = group();
    const auto source = mine->members.find(copy.from);
    if (source == mine->members.end() || !source->second->held_.whole ||
        source->second->held_.step != base) {
      shared_.world.violate("I13", "rank " + std::to_string(copy.from) +
                                       " is copied from at step " + std::to_string(base) +
                                       " and does not hold it");
      return;
    }
    value_ = source->second->value_;
    held_ = {.whole = true, .step = base, .pending = 0};
    return;
  }
  if (!order.checkpoint.empty()) {
    const auto at = shared_.storage.committed.find({start_.job.value, base});
    if (at == shared_.storage.committed.end()) {
      shared_.world.violate("I14", "a rank is to load a checkpoint that was not committed");
      return;
    }
    value_ = at->second;
  } else if (base == 0) {
    value_ = kInitialValue;
  } else {
    shared_.world.violate("I13", "nothing leads a rank to step " + std::to_string(base));
    return;
  }
  held_ = {.whole = true, .step = base, .pending = 0};
}

void Rank::form() {
  Group* mine = group();
  if (mine->broken) return;
  stand_at(form_);
  if (shared_.world.violation()) return;
  if (value_ != value_at(held_.step)) {
    shared_.world.violate("I13", "the state of step " + std::to_string(held_.step) +
                                     " is not that of "
                                     "an undisturbed run");
  }
  say(wire::GroupFormed{.job = start_.job,
                        .generation = generation_,
                        .process = start_.process,
                        .rank = rank_,
                        .step = held_.step,
                        .copied_bytes = 0,
                        .serve_endpoint = {},
                        .serve_key = {},
                        .model = {}});
  const Workload& load = shared_.workloads[start_.name];
  if (held_.step >= load.steps && form_.checkpoint.empty()) save_part(held_.step);
  if (++mine->formed < mine->size) return;
  // What had been agreed when an earlier group broke, and what was raised by now.
  Flags flags;
  for (const auto& [rank, member] : mine->members) {
    flags.add(member->agreed_);
    flags.add(member->raised_);
  }
  for (const auto& [rank, member] : mine->members) {
    member->agreed_ = flags;
    if (!flags.stop) {
      member->vote();
      continue;
    }
    const bool missing = !shared_.storage.committed.contains({start_.job.value, held_.step});
    if (flags.save && missing && held_.step != 0) member->save_part(held_.step);
    member->finish();
  }
}

void Rank::vote() {
  const Workload& load = shared_.workloads[start_.name];
  if (held_.step >= load.steps) {
    in_group(1ms, [this] { finish(); });
    return;
  }
  in_group(shared_.world.some(load.step_time / 2, load.step_time), [this] {
    Group* mine = group();
    say(wire::RankProgress{.job = start_.job,
                           .generation = generation_,
                           .process = start_.process,
                           .phase = "exchange",
                           .step = mine->step,
                           .collective = mine->step,
                           .compute_us = 0,
                           .beat = 0});
    held_.pending = mine->step;
    mine->flags.add(raised_);
    mine->voted.insert(rank_);
    if (mine->broken || mine->voted.size() < mine->size) return;
    for (const auto& [rank, member] : mine->members) {
      member->in_group(shared_.world.some(0ms, 8ms), [member = member] { member->commit(); });
    }
  });
}

void Rank::commit() {
  Group* mine = group();
  if (held_.pending != mine->step) return;
  const std::uint64_t step = mine->step;
  value_ = next_value(value_, step);
  // The gradients stay until every rank has committed.
  held_ = {.whole = true, .step = step, .pending = 0};
  agreed_ = mine->flags;
  ++shared_.steps_committed;
  say(wire::StepReported{.job = start_.job,
                         .generation = generation_,
                         .process = start_.process,
                         .line = "{\"step\": " + std::to_string(step) + "}"});
  if (!std::exchange(first_step_said_, true)) {
    say(wire::FirstStepDone{
        .job = start_.job, .generation = generation_, .process = start_.process, .step = step});
  }
  const Workload& load = shared_.workloads[start_.name];
  if (step % load.save_every == 0 || step == load.steps || agreed_.save) save_part(step);
  mine->committed.insert(rank_);
  if (mine->broken || mine->committed.size() < mine->size) return;
  mine->committed.clear();
  mine->voted.clear();
  ++mine->step;
  const bool stops = std::exchange(mine->flags, {}).stop;
  for (const auto& [rank, member] : mine->members) stops ? member->finish() : member->vote();
}

void Rank::save_part(std::uint64_t step) {
  in_group(shared_.world.some(0ms, 5ms), [this, step, value = value_] {
    auto& parts = shared_.storage.parts[{start_.job.value, {generation_.value, step}}];
    const bool fails = shared_.world.rng().chance(shared_.workloads[start_.name].save_failure);
    if (!fails) parts.ranks.insert(rank_);
    parts.size = size_;
    parts.value = value;
    say(wire::CheckpointPart{.job = start_.job,
                             .generation = generation_,
                             .process = start_.process,
                             .rank = rank_,
                             .step = step,
                             .files = {},
                             .error = fails ? "no space left on device" : ""});
  });
}

void Rank::handle(const wire::CommitCheckpoint& order) {
  later(shared_.world.some(1ms, 10ms), [this, order] {
    const std::pair<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>> key{
        order.job.value, {order.generation.value, order.step}};
    const auto parts = shared_.storage.parts.find(key);
    auto& committed = shared_.storage.committed;
    const std::pair<std::uint64_t, std::uint64_t> name{order.job.value, order.step};
    if (!committed.contains(name)) {
      if (parts == shared_.storage.parts.end() ||
          parts->second.ranks.size() != parts->second.size) {
        shared_.world.violate("I14", "a checkpoint is committed without all its parts");
        return;
      }
      committed[name] = parts->second.value;
    }
    say(wire::CheckpointCommitted{.job = order.job,
                                  .generation = order.generation,
                                  .process = start_.process,
                                  .step = order.step,
                                  .folder = "step-" + std::to_string(order.step),
                                  .error = {}});
  });
}

void Rank::finish() {
  // After the last part, which is being written.
  in_group(6ms, [this] {
    agreed_ = {};
    say(wire::RankFinished{.job = start_.job,
                           .generation = generation_,
                           .process = start_.process,
                           .rank = rank_,
                           .step = held_.step,
                           .failure = wire::FailureClass::none,
                           .message = {}});
  });
}

void Rank::handle(const wire::AbortGeneration& order) {
  if (generation_ <= order.generation) leave_group();
}

void Rank::handle(const wire::StopRank&) {
  later(shared_.world.some(1ms, 30ms), [this] { die(0, 0); });
}

void Rank::leave_group() {
  if (!std::exchange(in_group_, false)) return;
  Group* mine = group();
  if (mine == nullptr) return;
  // The step commit: with all votes in, a rank updates before it obeys.
  const bool all_votes = mine->connected && mine->voted.size() == mine->size;
  if (alive_ && all_votes && held_.pending == mine->step) {
    value_ = next_value(value_, mine->step);
    held_ = {.whole = true, .step = mine->step, .pending = 0};
    agreed_ = mine->flags;
  }
  mine->members.erase(rank_);
  // Peers see the closed connection.
  mine->broken = true;
  for (const auto& [rank, member] : mine->members) {
    member->in_group(shared_.world.some(1ms, 40ms), [member = member, gone = rank_] {
      member->group_broken(static_cast<std::int32_t>(gone));
    });
  }
}

void Rank::group_broken(std::int32_t suspect) {
  leave_group();
  say(wire::GenerationBroken{.job = start_.job,
                             .generation = generation_,
                             .process = start_.process,
                             .rank = rank_,
                             .suspect = suspect,
                             .reason = "peer " + std::to_string(suspect) + " is gone",
                             .held = held_});
}

void Rank::run_program(Generation generation) {
  generation_ = generation;
  auto& running = shared_.programs[start_.job];
  for (const auto& [process, other] : running) {
    if (other != generation) {
      shared_.world.violate("I3", "programs of generations " + to_string(other) + " and " +
                                      to_string(generation) + " run together");
    }
  }
  running[start_.process] = generation;
  const Workload& load = shared_.workloads[start_.name];
  later(shared_.world.some(load.step_time, load.step_time * 10), [this] {
    const bool fails = shared_.world.rng().chance(shared_.workloads[start_.name].user_failure);
    die(fails ? 1 : 0, 0);
  });
}

void Rank::signal(std::int32_t number) {
  constexpr std::int32_t kKill = 9;
  constexpr std::int32_t kTerminate = 15;
  constexpr std::int32_t kStop = 19;
  if (!alive_) return;
  if (number == kKill) die(0, kKill);
  if (number == kTerminate) later(shared_.world.some(1ms, 20ms), [this] { die(0, kTerminate); });
  if (number == kStop) {
    hung_ = true;
    // Peers see no byte move.
    if (Group* mine = in_group_ ? group() : nullptr) {
      for (const auto& [rank, member] : mine->members) {
        if (member == this) continue;
        member->in_group(2s, [member = member, gone = rank_] {
          member->group_broken(static_cast<std::int32_t>(gone));
        });
      }
    }
  }
}

void Rank::die(std::int32_t code, std::int32_t signal_number) {
  if (!std::exchange(alive_, false)) return;
  leave_group();
  shared_.programs[start_.job].erase(start_.process);
  exit_(code, signal_number);
}

}  // namespace tutti::simulation
