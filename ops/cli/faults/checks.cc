#include "ops/cli/faults/checks.h"

#include <fmt/core.h>

#include <utility>

namespace tutti::cli {

namespace {

constexpr FaultCheck kChecks[] = {
    {"I1", "accepted", "the job that was accepted is known, with the spec that was sent",
     CheckOf::promise, check_accepted},
    {"I2", "key", "the submit, repeated with its key, gives the same job", CheckOf::promise,
     check_key},
    {"I3", "fencing", "no step of an older generation follows one of a newer", CheckOf::promise,
     check_fencing},
    {"I4", "gang", "every step was made by as many ranks as the job must have", CheckOf::promise,
     check_gang},
    {"I5", "room", "free and used slots of a node are no more than it has", CheckOf::promise,
     check_room},
    {"I6", "slots", "no slot is held by two processes", CheckOf::promise, check_slots},
    {"I7", "life", "the job's life is one of those it may have; its end is final", CheckOf::promise,
     check_life},
    {"I8", "budgets", "faults are charged to the infrastructure, each once at most",
     CheckOf::promise, check_budgets},
    {"I10", "causes", "every recovery has a fault that can be its cause", CheckOf::promise,
     check_causes},
    {"I11", "ledger", "a copy of the ledger, replayed, gives the job that readers see",
     CheckOf::promise, check_ledger},
    {"I12", "samples", "every step is recorded once, with all of its samples", CheckOf::promise,
     check_samples},
    {"I13", "bits", "the weights are those of a run without faults", CheckOf::promise, check_bits},
    {"I14", "checkpoints", "every checkpoint that is listed is whole", CheckOf::promise,
     check_checkpoints},
    {"I15", "events", "events are numbered without a gap, and stay as they were told",
     CheckOf::promise, check_events},
    {"I15", "logs", "output stays as it was told, and is resumed from any cursor", CheckOf::promise,
     check_logs},
    {"I15", "steps", "a step that was told is not taken back", CheckOf::promise, check_told},
    {"I17", "liveness", "after the last fault the job goes on, or ends, within its bound",
     CheckOf::promise, check_liveness},
    {"I18", "answers", "every request was answered, or refused in words", CheckOf::promise,
     check_answers},
    {"-", "processes", "nothing of an ended job runs any more", CheckOf::promise, check_left},
    {"-", "schedule", "every fault of the schedule was injected", CheckOf::run, check_schedule},
    {"-", "end", "the job ended as it was expected to", CheckOf::run, check_end},
};

}  // namespace

std::span<const FaultCheck> fault_checks() { return kChecks; }

std::string fault_check_lines() {
  std::string text = "What is checked at the end:\n";
  for (const FaultCheck& check : kChecks) {
    text += fmt::format("  {:<4}{:<12} {}\n", check.invariant, check.name, check.holds);
  }
  return text;
}

std::vector<Judged> judge(const FaultHistory& history) {
  std::vector<Judged> out;
  for (const FaultCheck& check : kChecks) out.push_back({&check, check.judge(history)});
  return out;
}

CheckFinding held(std::string detail) { return {CheckVerdict::held, std::move(detail)}; }
CheckFinding violated(std::string detail) { return {CheckVerdict::violated, std::move(detail)}; }
CheckFinding not_checked(std::string detail) {
  return {CheckVerdict::not_checked, std::move(detail)};
}

}  // namespace tutti::cli
