// The rank in its group: connecting, standing at the base step, steps, leaving.
#include <algorithm>
#include <utility>

#include "tests/simulation/cluster/sim_rank.h"

namespace tutti::simulation {

namespace {

constexpr Duration kFormDeadline = 60s;

}  // namespace

void SimRank::progress(const char* phase) {
  phase_ = phase;
  report_progress();
}

void SimRank::report_progress() {
  doors_.say(wire::RankProgress{.job = start_.job,
                                .generation = form_.generation,
                                .process = start_.process,
                                .phase = phase_,
                                .step = held_.step,
                                .collective = collective_,
                                .compute_us = 0,
                                .beat = beats_});
}

void SimRank::beat() {
  ++beats_;
  if (form_.generation) report_progress();
  later(1s, [this] { beat(); });
}

void SimRank::connect(const rank::BeginGroup& effect) {
  if (effect.order.generation < form_.generation) {
    return violate("I3", "a group of an older generation is begun");
  }
  form_ = effect.order;
  rank_ = effect.rank;
  in_group_ = true;
  first_step_ = true;
  collective_ = 0;
  Group& mine = group();
  const auto size = static_cast<std::uint32_t>(form_.addresses.size());
  if (rank_ >= size) return violate("I4", "rank " + std::to_string(rank_) + " of a smaller group");
  mine.size = size;
  if (!mine.members.emplace(rank_, this).second) {
    return violate("I6", "two processes are rank " + std::to_string(rank_));
  }
  if (interrupted_) {
    in_group(1ms, [this] { leave(-1, *interrupted_); });
    return;
  }
  if (mine.broken) {
    in_group(world_.some(1ms, 40ms), [this] { leave(-1, "a peer is gone"); });
    return;
  }
  progress("connecting");
  in_group(kFormDeadline, [this] {
    if (!group().connected) leave(-1, "not all peers came");
  });
  if (mine.connected) {
    // Only where a group begins without its last rank on purpose.
    mine.members.erase(rank_);
    in_group_ = false;
    return;
  }
  const std::size_t needed = world_.breaks(Mutation::form_incomplete) && size > 1 ? size - 1 : size;
  if (mine.members.size() < needed || mine.connected) return;
  JobHistory& history = shared_.history[start_.job];
  if (form_.generation < history.newest_formed) {
    // Ranks that stood still with their order, and that no word reaches or that are being ended,
    // may form once they go on: what they compute commits nothing, which the checkers of facts
    // judge.
    const bool heeded = std::any_of(mine.members.begin(), mine.members.end(),
                                    [](const auto& each) { return each.second->doors_.heeded(); });
    if (heeded) {
      violate("I3", "generation " + to_string(form_.generation) + " forms after " +
                        to_string(history.newest_formed));
    }
    world_.reached("ranks formed a generation that was over, and nobody heeded them");
  }
  history.newest_formed = std::max(history.newest_formed, form_.generation);
  mine.connected = true;
  for (const auto& [rank, member] : mine.members) {
    member->in_group(world_.some(1ms, 30ms),
                     [member = member] { member->when_linked([member] { member->enter(); }); });
  }
}

bool SimRank::is_cut_off() {
  const auto& members = group().members;
  return std::any_of(members.begin(), members.end(), [&](const auto& entry) {
    return shared_.is_cut(doors_.machine, entry.second->doors_.machine);
  });
}

void SimRank::when_linked(Task action) {
  if (!is_cut_off()) return action();
  world_.reached("a rank waited for one that it was cut off from");
  in_group(world_.some(5ms, 40ms), [this, action = std::move(action)] { when_linked(action); });
}

void SimRank::enter() {
  if (group().broken) return;
  if (start_.kind == "serve") {
    tell(rank::Entered{.generation = form_.generation,
                       .step = 0,
                       .copied_bytes = 0,
                       .serve_endpoint = "tcp://" + to_string(start_.process),
                       .serve_key = "key",
                       .model = start_.name});
    return;
  }
  const std::uint64_t pending = held_.pending;
  if (!stand_at_base()) return;
  if (value_ != value_at(held_.step)) {
    return violate("I13", "the state of step " + std::to_string(held_.step) +
                              " is not that of an undisturbed run");
  }
  tell(rank::Entered{.generation = form_.generation,
                     .step = held_.step,
                     .copied_bytes = 0,
                     .serve_endpoint = {},
                     .serve_key = {},
                     .model = {}});
  if (pending != 0 && pending == held_.step) {
    world_.reached("a survivor finished the pending step");
    tell(rank::StepCommitted{.generation = form_.generation,
                             .step = pending,
                             .first = false,
                             .line = std::to_string(pending) + " " + std::to_string(value_)});
  }
  // Nobody goes on before all stand at the base step: a newcomer may still copy.
  Group& mine = group();
  mine.entered.insert(rank_);
  if (mine.entered.size() < mine.members.size()) return;
  // What had been agreed when an earlier group broke, and what was raised by now.
  Flags flags;
  for (const auto& [rank, member] : mine.members) {
    flags.add(member->agreed_);
    flags.add(std::exchange(member->raised_, {}));
  }
  for (const auto& [rank, member] : mine.members) {
    member->in_group(world_.some(0ms, 2ms), [member = member, flags] { member->set_out(flags); });
  }
}

void SimRank::set_out(const Flags& flags) {
  agreed_ = flags;
  const std::uint64_t step = held_.step;
  const bool missing =
      form_.checkpoint.empty() && !shared_.storage.committed.contains({start_.job, step});
  const bool due = step >= load().steps || step % load().save_every == 0 || flags.save;
  if (flags.stop) world_.reached("flags that were agreed in a broken group were honoured");
  const Task then = [this, flags] { flags.stop ? finish() : begin_step(); };
  if (step != 0 && due && missing) return save_part(step, then);
  then();
}

// In the order of wire::FormGroup.
bool SimRank::stand_at_base() {
  const std::uint64_t base = form_.base_step;
  if (held_.whole && held_.step == base) return true;
  if (held_.whole && held_.pending == base && base != 0) {
    update(base);
    return true;
  }
  if (copy_from_peer()) return true;
  if (world_.violation()) return false;
  if (!form_.checkpoint.empty()) return load_checkpoint();
  if (base != 0) {
    violate("I13", "nothing leads a rank to step " + std::to_string(base));
    return false;
  }
  value_ = value_at(0);
  held_ = {.whole = true, .step = 0, .pending = 0};
  return true;
}

bool SimRank::copy_from_peer() {
  for (const wire::StateCopy& copy : form_.copies) {
    if (copy.to != rank_) continue;
    const auto source = group().members.find(copy.from);
    if (source == group().members.end() || !source->second->held_.whole ||
        source->second->held_.step != form_.base_step) {
      violate("I13", "rank " + std::to_string(copy.from) + " is copied from at step " +
                         std::to_string(form_.base_step) + " and does not hold it");
      return false;
    }
    value_ = source->second->value_;
    if (world_.breaks(Mutation::load_other_state)) ++value_;
    held_ = {.whole = true, .step = form_.base_step, .pending = 0};
    world_.reached("a newcomer copied its state from a peer");
    return true;
  }
  return false;
}

bool SimRank::load_checkpoint() {
  const auto at = shared_.storage.committed.find({start_.job, form_.base_step});
  if (at == shared_.storage.committed.end()) {
    if (form_.generation < shared_.history[start_.job].newest_formed) {
      // Cut off, or it hung: the job went on without it, and what it was to load is pruned.
      leave(-1, "the checkpoint is gone");
      return false;
    }
    violate("I14", "a rank is to load a checkpoint of step " + std::to_string(form_.base_step) +
                       " that is not there");
    return false;
  }
  value_ = at->second;
  held_ = {.whole = true, .step = form_.base_step, .pending = 0};
  world_.reached("a checkpoint was loaded");
  return true;
}

void SimRank::begin_step() {
  if (held_.step >= load().steps) return finish();
  progress("forward");
  in_group(world_.some(load().step_time / 2, load().step_time), [this] { contribute(); });
}

void SimRank::contribute() {
  if (world_.rng().chance(load().own_failure)) return die(0, 6);
  Group& mine = group();
  const std::uint64_t step = held_.step + 1;
  // The one before may still be looked at by a rank that is late to commit it.
  mine.steps.erase(mine.steps.begin(), mine.steps.lower_bound(step - 1));
  Exchange& exchange = mine.steps[step];
  collective_ = step;
  progress("exchange");
  exchange.contributed.insert(rank_);
  exchange.flags.add(std::exchange(raised_, {}));
  for (std::uint32_t shard = rank_ * kShards / mine.size; shard < (rank_ + 1) * kShards / mine.size;
       ++shard) {
    ++exchange.used[shard];
  }
  if (world_.breaks(Mutation::skip_sample) && step == 3) exchange.used[0] = 0;
  const std::size_t needed =
      world_.breaks(Mutation::form_incomplete) ? mine.members.size() : mine.size;
  if (mine.broken || exchange.contributed.size() < needed) return;
  for (const auto& [rank, member] : mine.members) {
    member->in_group(world_.some(0ms, 4ms),
                     [member = member] { member->when_linked([member] { member->reduce(); }); });
  }
}

// All that the step needs is here: the vote.
void SimRank::reduce() {
  Group& mine = group();
  if (mine.broken) return;
  held_.pending = held_.step + 1;
  Exchange& exchange = mine.steps[held_.pending];
  exchange.voted.insert(rank_);
  if (exchange.voted.size() < mine.members.size()) return;
  for (const auto& [rank, member] : mine.members) {
    // Now and then one is late, so that its peers, or an abort, are there before it has updated.
    const Duration most = world_.rng().chance(0.1) ? 80ms : 8ms;
    member->in_group(world_.some(0ms, most), [member = member] {
      member->when_linked([member] { member->commit_step(); });
    });
  }
}

void SimRank::commit_step() {
  Group& mine = group();
  const std::uint64_t step = held_.pending;
  if (step == 0) return;
  const Exchange exchange = mine.steps[step];
  if (exchange.contributed.size() != mine.size) {
    violate("I4", "step " + std::to_string(step) + " is committed by " +
                      std::to_string(exchange.contributed.size()) + " of " +
                      std::to_string(mine.size) + " ranks");
  }
  update(step);
  tell(rank::StepCommitted{.generation = form_.generation,
                           .step = step,
                           .first = std::exchange(first_step_, false),
                           .line = std::to_string(step) + " " + std::to_string(value_)});
  doors_.print("step " + std::to_string(step) + "\n");
  after_step(step);
}

// Without communication: the gradients are here.
void SimRank::update(std::uint64_t step) {
  std::array<int, kShards> used{};
  used.fill(1);
  // A step that was finished later, out of its group, used the same gradients.
  if (in_group_ && group().steps.contains(step)) {
    used = group().steps[step].used;
    agreed_ = group().steps[step].flags;
    for (const int times : used) {
      if (times != 1) {
        violate("I12", "a sample of step " + std::to_string(step) + " is used " +
                           std::to_string(times) + " times");
      }
    }
  }
  value_ = next_value(value_, step, used);
  held_ = {.whole = true, .step = step, .pending = 0};
  ++shared_.steps_committed;
  JobHistory& history = shared_.history[start_.job];
  const auto [known, news] = history.committed.emplace(step, value_);
  if (!news && known->second != value_) {
    violate("I13", "step " + std::to_string(step) + " was committed with two hashes");
  }
}

void SimRank::after_step(std::uint64_t step) {
  const Flags flags = agreed_;
  const bool last = flags.stop || step >= load().steps;
  const bool saves = flags.save || step >= load().steps || step % load().save_every == 0;
  if (flags.save) world_.reached("a save that was asked for");
  if (flags.stop) world_.reached("all ranks stopped after the same step");
  const Task then = [this, last] { last ? finish() : begin_step(); };
  if (!saves) return then();
  save_part(step, then);
}

void SimRank::finish() {
  progress("idle");
  agreed_ = {};
  in_group_ = false;
  group().members.erase(rank_);
  if (held_.step >= load().steps) ++shared_.history[start_.job].finished_steps;
  tell(rank::Finished{held_.step, wire::FailureClass::none, {}});
  next_task();
}

void SimRank::leave(std::int32_t suspect, const std::string& reason) {
  if (!in_group_) return;
  detach();
  tell(rank::GroupLeft{form_.generation, suspect, reason, held_});
  next_task();
}

// Out of the group; peers see the closed connection.
void SimRank::detach() {
  if (!in_group_) return;
  Group& mine = group();
  if (alive_ && held_.pending != 0) {
    // With all votes in, a rank updates before it obeys. Some of the votes may be on their way.
    const Exchange& exchange = mine.steps[held_.pending];
    if (exchange.voted.size() == mine.size && world_.rng().chance(0.5)) {
      const std::uint64_t step = held_.pending;
      world_.reached("a rank updated before it obeyed an abort");
      update(step);
      tell(rank::StepCommitted{.generation = form_.generation,
                               .step = step,
                               .first = false,
                               .line = std::to_string(step) + " " + std::to_string(value_)});
    }
  }
  in_group_ = false;
  mine.members.erase(rank_);
  mine.broken = true;
  if (writing_ != 0) {
    shared_.storage.parts[{start_.job, form_.generation, writing_}][rank_] = {};
    world_.reached("a checkpoint's part was torn");
    writing_ = 0;
  }
  for (const auto& [rank, member] : mine.members) {
    member->in_group(world_.some(1ms, 40ms), [member = member, gone = rank_] {
      member->leave(static_cast<std::int32_t>(gone), "peer " + std::to_string(gone) + " is gone");
    });
  }
}

}  // namespace tutti::simulation
