// What must hold of a job that faults befell, each a check of its own that can fail, by the names
// of the invariants in ARCHITECTURE (I1 to I18) where it has one.
//
// The simulator checks the same invariants, and those that need the inside of a coordinator (I9,
// I16, I19), on state machines under virtual time (tests/simulation/checkers); here they are judged
// by what any reader of a real cluster is told.
//
// To add one: a function over the history, and a row in checks.cc. A test breaks each.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/cli/faults/history.h"

namespace tutti::cli {

enum class CheckVerdict {
  held,
  violated,
  not_checked  // it has no meaning here, or could not be seen; the finding says why
};

struct CheckFinding {
  CheckVerdict verdict = CheckVerdict::held;
  std::string detail;
};

// Whose fault it is if a check fails: Tutti's, or that the run did not become what its file says
// (a fault that was not reached, another end than expected).
enum class CheckOf { promise, run };

struct FaultCheck {
  std::string_view invariant;  // "I13", or "-"
  std::string_view name;       // one word
  std::string_view holds;      // what must be true
  CheckOf of = CheckOf::promise;
  CheckFinding (*judge)(const FaultHistory& history) = nullptr;
};

std::span<const FaultCheck> fault_checks();

// Each with what it stands for, for `tutti help fault run`.
std::string fault_check_lines();

struct Judged {
  const FaultCheck* check = nullptr;
  CheckFinding finding;
};

std::vector<Judged> judge(const FaultHistory& history);

CheckFinding held(std::string detail);
CheckFinding violated(std::string detail);
CheckFinding not_checked(std::string detail);

// checks_of_life.cc
CheckFinding check_accepted(const FaultHistory& history);
CheckFinding check_key(const FaultHistory& history);
CheckFinding check_room(const FaultHistory& history);
CheckFinding check_slots(const FaultHistory& history);
CheckFinding check_life(const FaultHistory& history);
CheckFinding check_budgets(const FaultHistory& history);
CheckFinding check_causes(const FaultHistory& history);
CheckFinding check_liveness(const FaultHistory& history);
CheckFinding check_answers(const FaultHistory& history);
CheckFinding check_left(const FaultHistory& history);
CheckFinding check_schedule(const FaultHistory& history);
CheckFinding check_end(const FaultHistory& history);
// checks_of_records.cc
CheckFinding check_fencing(const FaultHistory& history);
CheckFinding check_gang(const FaultHistory& history);
CheckFinding check_ledger(const FaultHistory& history);
CheckFinding check_samples(const FaultHistory& history);
CheckFinding check_bits(const FaultHistory& history);
CheckFinding check_checkpoints(const FaultHistory& history);
CheckFinding check_events(const FaultHistory& history);
CheckFinding check_logs(const FaultHistory& history);
CheckFinding check_told(const FaultHistory& history);

}  // namespace tutti::cli
