#include "jobs/rank/rank_state.h"

#include <algorithm>

namespace tutti::rank {

std::vector<Effect> RankState::on(const wire::ToRank& order) {
  return std::visit(
      [this]<class Order>(const Order& value) -> Effects {
        if constexpr (!std::is_same_v<Order, wire::StartRank>) {
          if (value.process != process_ || phase_ == Phase::waiting) return {};
        }
        return take(value);
      },
      order);
}

std::vector<Effect> RankState::on(const Event& event) {
  return std::visit([this](const auto& value) { return take(value); }, event);
}

template <class Report>
Report RankState::stamped(Generation generation) const {
  Report report;
  report.job = job_;
  report.generation = generation;
  report.process = process_;
  return report;
}

RankState::Effects RankState::take(const wire::StartRank& order) {
  if (phase_ != Phase::waiting) return {};
  job_ = order.job;
  process_ = order.process;
  generation_ = order.generation;
  rank_ = order.rank;
  size_ = order.size;
  phase_ = Phase::setting_up;
  return {BeginSetUp{order}};
}

RankState::Effects RankState::take(const SetUpDone&) { return listen(); }

RankState::Effects RankState::listen() {
  phase_ = Phase::listening;
  return {BeginListening{generation_, rank_, size_}};
}

RankState::Effects RankState::take(const Listening& event) {
  if (phase_ != Phase::listening) return {};
  if (event.generation < generation_) return listen();  // a newer one was ordered meanwhile
  if (event.generation <= aborted_) {
    phase_ = Phase::between;
    return {};
  }
  phase_ = Phase::ready;
  auto ready = stamped<wire::RankReady>(event.generation);
  ready.rank = rank_;
  ready.address = event.address;
  ready.held = event.held;
  return {SendReport{ready}};
}

RankState::Effects RankState::take(const wire::FormGroup& order) {
  if (phase_ != Phase::ready || order.generation != generation_) return {};
  phase_ = Phase::in_group;
  group_generation_ = order.generation;
  return {BeginGroup{order, rank_}};
}

RankState::Effects RankState::take(const wire::Regroup& order) {
  if (order.generation <= generation_ || failed_) return {};
  generation_ = order.generation;
  rank_ = order.rank;
  size_ = order.size;
  switch (phase_) {
    case Phase::ready:
    case Phase::between:
    case Phase::finished: return listen();
    case Phase::in_group:
      phase_ = Phase::leaving;
      return {Interrupt{"generation " + to_string(order.generation) + " is forming"}};
    case Phase::waiting:
    case Phase::setting_up:
    case Phase::listening:
    case Phase::leaving: return {};  // the new generation is taken up when that is done
  }
  return {};
}

RankState::Effects RankState::take(const wire::AbortGeneration& order) {
  if (order.generation < generation_) return {};
  aborted_ = std::max(aborted_, order.generation);
  if (phase_ == Phase::ready) phase_ = Phase::between;
  if (phase_ != Phase::in_group) return {};
  phase_ = Phase::leaving;
  return {Interrupt{order.reason}};
}

// Its worker ends it once the grace is over.
RankState::Effects RankState::take(const wire::StopRank& order) {
  if (phase_ != Phase::in_group || order.grace_ms == 0) return {ExitProcess{0}};
  stopping_ = true;
  return {WindDown{}};
}

// Not bound to this rank's generation: the parts of one that is over may be whole.
RankState::Effects RankState::take(const wire::CommitCheckpoint& order) {
  return {BeginCommit{order}};
}

RankState::Effects RankState::take(const wire::SetFlags& order) {
  const bool joins = phase_ == Phase::ready || phase_ == Phase::in_group;
  if (!joins || order.generation != generation_) return {};
  return {RaiseFlags{order.save, order.stop}};
}

RankState::Effects RankState::take(const Entered& event) {
  if (phase_ != Phase::in_group) return {};
  auto formed = stamped<wire::GroupFormed>(event.generation);
  formed.rank = rank_;
  formed.step = event.step;
  formed.copied_bytes = event.copied_bytes;
  formed.serve_endpoint = event.serve_endpoint;
  formed.serve_key = event.serve_key;
  formed.model = event.model;
  return {SendReport{formed}};
}

// A step that was committed counts, also when the group is being left.
RankState::Effects RankState::take(const StepCommitted& event) {
  Effects effects;
  auto reported = stamped<wire::StepReported>(event.generation);
  reported.line = event.line;
  effects.emplace_back(SendReport{reported});
  if (event.first) {
    auto first = stamped<wire::FirstStepDone>(event.generation);
    first.step = event.step;
    effects.emplace_back(SendReport{first});
  }
  return effects;
}

RankState::Effects RankState::take(const PartWritten& event) {
  auto part = stamped<wire::CheckpointPart>(event.generation);
  part.rank = rank_;
  part.step = event.step;
  part.files = event.files;
  part.error = event.error;
  return {SendReport{part}};
}

RankState::Effects RankState::take(const GroupLeft& event) {
  if (stopping_) return {ExitProcess{0}};
  const bool ordered = phase_ == Phase::leaving;
  if (generation_ > event.generation) return listen();
  phase_ = Phase::between;
  if (ordered) return {};
  auto broken = stamped<wire::GenerationBroken>(event.generation);
  broken.rank = rank_;
  broken.suspect = event.suspect;
  broken.reason = event.reason;
  broken.held = event.held;
  broken.failure = event.failure;
  return {SendReport{broken}};
}

RankState::Effects RankState::take(const Finished& event) {
  failed_ = event.failure != wire::FailureClass::none;
  if (!failed_ && phase_ == Phase::leaving) {  // done, but the group is to form once more
    if (generation_ > group_generation_) return listen();
    phase_ = Phase::between;
    return {};
  }
  phase_ = Phase::finished;
  auto finished = stamped<wire::RankFinished>(generation_);
  finished.rank = rank_;
  finished.step = event.step;
  finished.failure = event.failure;
  finished.message = event.message;
  return {SendReport{finished}};
}

RankState::Effects RankState::take(const CommitDone& event) {
  auto committed = stamped<wire::CheckpointCommitted>(event.generation);
  committed.step = event.step;
  committed.folder = event.folder;
  committed.error = event.error;
  return {SendReport{committed}};
}

}  // namespace tutti::rank
