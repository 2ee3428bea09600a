#include "tests/simulation/checkers/checkers.h"

#include <boost/describe/enum_to_string.hpp>

namespace tutti::simulation {

namespace {

// The first is asked first: a job that has not ended explains what else is missing.
const CheckerRow kCheckers[] = {
    {"I17", make_liveness_checker, "after faults stop every job ends or runs within a bound"},
    {"I1", make_accepted_checker, "an accepted submit survives any crash; a rejected never runs"},
    {"I2", nullptr, "submits are idempotent by key (scenario/clients.cc)"},
    {"I3", make_generation_checker, "at most one generation of a job may commit effects"},
    {"I4", make_gang_checker, "a job never runs with less than its gang"},
    {"I5", make_resource_checker, "free + reserved = total for every resource"},
    {"I6", make_slot_checker, "a device is never given twice"},
    {"I7", make_transition_checker, "only legal transitions; terminal never changes"},
    {"I8", make_charge_checker, "infrastructure failures never use up the user's restarts"},
    {"I9", make_order_checker, "no preemption cycle; the oldest eligible job starts in bounds"},
    {"I10", make_silence_checker, "silence kills no healthy job and leaves none stuck"},
    {"I11", make_replay_checker, "replaying the journal gives byte-equal durable state"},
    {"I12", make_sample_checker, "each sample is used exactly once in the history of steps"},
    {"I13", make_hash_checker, "the hash at step t equals the undisturbed run's"},
    {"I14", make_checkpoint_checker, "a checkpoint is whole and verified, or invisible"},
    {"I15", make_record_checker, "logs and events are ordered, gap-free or gap-marked"},
    {"I16", make_drain_checker, "a draining node gets no new work and is empty by its deadline"},
    {"I18", make_answer_checker, "every request gets one answer or one explicit error"},
    {"I19", make_memory_checker, "memory is bounded by live state plus a fixed history"},
    {"array", make_array_checker, "an array never runs more than at_once, and each task once"},
    {"dependency", make_dependency_checker, "a job starts after what it waits for, or never"},
    {"quota", make_quota_checker, "no user holds more than its quota"},
    {"fit", make_fit_checker, "a rank runs where labels, device and memory are as asked for"},
    {"begin", make_begin_checker, "no job starts before the time it was asked to wait for"},
    {"place", make_place_checker, "nobody passes an equal; who left goes on where it was saved"},
    {"held", make_hold_checker, "where a gang lost a rank, nobody else is placed for a while"},
    {"backfill", make_backfill_checker, "the head of the queue starts when it was told"},
    {"turn", make_turn_checker, "overdue jobs, then priority, age, and who had less"},
};

}  // namespace

std::span<const CheckerRow> checkers() { return kCheckers; }

std::string_view state_name(coordinator::JobState state) {
  return boost::describe::enum_to_string(state, "?");
}

const PlannedJob* planned_of(const Observed& seen, const coordinator::JobRecord& job) {
  const auto& jobs = seen.clients.jobs();
  const auto at = jobs.find(job.terms.name.substr(0, job.terms.name.find('.')));
  return at == jobs.end() ? nullptr : &at->second;
}

std::string describe(const coordinator::JobRecord& job) {
  return "job " + to_string(job.job) + " (" + job.terms.name + ")";
}

Checkers::Checkers(Observed observed) : observed_(observed) {
  for (const CheckerRow& row : kCheckers) {
    if (row.make != nullptr) checkers_.push_back(row.make());
  }
}

Observed Checkers::observed(const coordinator::Durable& shadow) const {
  return {observed_.world,
          observed_.ranks,
          observed_.coordinator,
          observed_.workers,
          observed_.clients,
          observed_.options,
          shadow};
}

void Checkers::decided(const coordinator::Decision& decision) {
  const Observed seen = observed(shadow_);
  for (const coordinator::Event& event : decision.events) note_paths(seen, event);
  for (const coordinator::Fact& fact : decision.facts) {
    note_paths(seen, fact);
    for (const auto& checker : checkers_) checker->before_fact(seen, fact);
    shadow_.apply(fact);
    for (const auto& checker : checkers_) checker->after_fact(seen, fact);
  }
  for (const auto& checker : checkers_) checker->decided(seen, decision);
}

void Checkers::restarted() {
  const JournalPast& past = observed_.coordinator.journal().truth();
  shadow_ = {};
  shadow_.restore(past.snapshot);
  for (const coordinator::Fact& fact : past.facts) shadow_.apply(fact);
  const Observed seen = observed(shadow_);
  for (const auto& checker : checkers_) checker->restarted(seen);
}

void Checkers::sent(const coordinator::SendToWorker& frame) {
  const Observed seen = observed(shadow_);
  for (const auto& checker : checkers_) checker->sent(seen, frame);
}

void Checkers::looked() {
  const Observed seen = observed(shadow_);
  for (const auto& checker : checkers_) checker->looked(seen);
}

void Checkers::ended() {
  const Observed seen = observed(shadow_);
  for (const auto& checker : checkers_) checker->ended(seen);
}

}  // namespace tutti::simulation
