#include "tests/simulation/cluster/sim_rank.h"

#include <utility>
#include <variant>

namespace tutti::simulation {

SimRank::SimRank(RankWorld& shared, wire::StartRank start, Doors doors)
    : shared_(shared), world_(shared.world), start_(std::move(start)), doors_(std::move(doors)) {
  if (!is_program()) beat();
}

SimRank::~SimRank() {
  *exists_ = false;
  alive_ = false;
  detach();
  shared_.programs[start_.job].erase(start_.process);
}

void SimRank::violate(const char* invariant, const std::string& what) {
  world_.violate(invariant, "job " + to_string(start_.job) + ", process " +
                                to_string(start_.process) + ": " + what);
}

void SimRank::later(Duration delay, Task action) {
  const auto slowed =
      Duration(static_cast<std::int64_t>(static_cast<double>(delay.count()) * slowness_));
  world_.after(slowed, [this, exists = exists_, action = std::move(action)] {
    if (!*exists || !alive_) return;
    if (hung_) return held_up_.push_back(action);
    action();
  });
}

void SimRank::in_group(Duration delay, Task action) {
  later(delay, [this, generation = form_.generation, action = std::move(action)] {
    if (in_group_ && generation == form_.generation) action();
  });
}

// What the state machine asks for
// --------------------------------------------------------------------------------------------

void SimRank::on(const wire::ToRank& order) {
  if (world_.breaks(Mutation::obey_old_generation) &&
      std::holds_alternative<wire::Regroup>(order) && form_.generation) {
    // It forgets the order and forms its old group once more.
    later(500ms, [this, old = form_] {
      rank::BeginGroup again{old, rank_};
      --again.order.generation.value;
      perform(again);
    });
    return;
  }
  later(0ms, [this, order] { perform_all(state_.on(order)); });
}

void SimRank::tell(const rank::Event& event) { perform_all(state_.on(event)); }

void SimRank::perform_all(const std::vector<rank::Effect>& effects) {
  for (const rank::Effect& effect : effects) {
    if (!alive_) return;
    std::visit([this](const auto& each) { perform(each); }, effect);
  }
}

void SimRank::perform(const rank::SendReport& effect) { doors_.say(effect.report); }

void SimRank::perform(const rank::BeginSetUp&) {
  push([this] {
    later(world_.some(20ms, 150ms), [this] {
      if (world_.rng().chance(load().set_up_failure)) {
        ++shared_.history[start_.job].user_failures;
        tell(rank::Finished{0, wire::FailureClass::user, "a data file is missing"});
      } else {
        tell(rank::SetUpDone{});
      }
      next_task();
    });
  });
}

void SimRank::perform(const rank::BeginListening& effect) {
  push([this, generation = effect.generation] {
    later(world_.some(1ms, 20ms), [this, generation] {
      interrupted_.reset();
      raised_ = {};
      tell(rank::Listening{generation, "rank-" + to_string(start_.process), held_});
      next_task();
    });
  });
}

void SimRank::perform(const rank::BeginGroup& effect) {
  push([this, effect] { connect(effect); });
}

void SimRank::perform(const rank::BeginCommit& effect) {
  // The disk has a thread of its own.
  later(world_.some(1ms, 10ms), [this, order = effect.order] { commit_checkpoint(order); });
}

void SimRank::perform(const rank::Interrupt& effect) {
  if (!interrupted_) interrupted_ = effect.reason;
  if (in_group_) {
    in_group(world_.some(0ms, 5ms), [this] { leave(-1, *interrupted_); });
  }
}

void SimRank::perform(const rank::RaiseFlags& effect) {
  raised_.add({.save = effect.save, .stop = effect.stop});
}

void SimRank::perform(const rank::ExitProcess& effect) {
  later(world_.some(1ms, 30ms), [this, code = effect.code] { die(code, 0); });
}

// The computing thread
// -----------------------------------------------------------------------------------------------

void SimRank::push(Task task) {
  tasks_.push_back(std::move(task));
  if (!busy_) next_task();
}

void SimRank::next_task() {
  busy_ = !tasks_.empty();
  if (!busy_) return;
  const Task task = std::move(tasks_.front());
  tasks_.pop_front();
  task();
}

// Life and death
// ---------------------------------------------------------------------------------------------

void SimRank::run_program(Generation generation) {
  auto& running = shared_.programs[start_.job];
  for (const auto& [process, other] : running) {
    if (other == generation) continue;
    violate("I3", "programs of generations " + to_string(other) + " and " + to_string(generation) +
                      " run together");
  }
  running[start_.process] = generation;
  doors_.print("program begins\n");
  const Duration begun = world_.now() - Instant{};
  const bool held =
      doors_.machine == load().held_on && begun >= load().held_from && begun < load().held_until;
  if (held) {
    stubborn_ = true;
    world_.reached("a program was held up");
  }
  const Duration rest = held ? load().held_until - load().held_from : Duration{0};
  later(rest + world_.some(load().step_time, load().step_time * 10), [this] {
    const bool fails = world_.rng().chance(load().user_failure);
    JobHistory& history = shared_.history[start_.job];
    ++(fails ? history.user_failures : history.programs_done);
    doors_.print("program ends\n");
    die(fails ? 1 : 0, 0);
  });
}

void SimRank::signal(std::int32_t number) {
  constexpr std::int32_t kKill = 9;
  constexpr std::int32_t kTerminate = 15;
  constexpr std::int32_t kContinue = 18;
  constexpr std::int32_t kStop = 19;
  if (!alive_) return;
  if (number == kKill) die(0, kKill);
  if (number == kTerminate && !stubborn_) {
    later(world_.some(1ms, 20ms), [this] { die(0, kTerminate); });
  }
  if (number == kStop) hung_ = true;
  if (number == kContinue && std::exchange(hung_, false)) {
    for (const Task& action : std::exchange(held_up_, {})) later(0ms, action);
  }
}

void SimRank::die(std::int32_t code, std::int32_t signal_number) {
  if (!std::exchange(alive_, false)) return;
  detach();
  shared_.programs[start_.job].erase(start_.process);
  doors_.exit(code, signal_number);
}

}  // namespace tutti::simulation
