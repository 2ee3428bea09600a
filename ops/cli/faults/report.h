// The report of a fault run: what was injected, what the cluster did, which promises held, and the
// command that does it again.
#pragma once

#include <boost/json/object.hpp>

#include <string>
#include <vector>

#include "ops/cli/faults/checks.h"
#include "ops/cli/session.h"
#include "ops/cli/text/table.h"

namespace tutti::cli {

struct FaultReport {
  const FaultHistory& history;
  const std::vector<Judged>& judged;
  std::string replay;  // the command
};

std::string report_text(const FaultReport& report, Paint paint);
boost::json::object report_json(const FaultReport& report);

// 0: everything held. 4: a promise did not. Else the run was not what its file says: the job's exit
// code, or 1.
ExitCode report_code(const FaultReport& report);

// One line of what was done: "killed rank 1 at step 20".
std::string print_injection(const InjectedFault& fault);

}  // namespace tutti::cli
