// What is looked at once the faults are over, beside what the API tells: the job's processes on
// this machine, its checkpoints on the disk, and its record in a copy of the ledger.
//
// Each says why where it cannot look: another machine, no permission.
#pragma once

#include <boost/json/value.hpp>

#include <chrono>
#include <string>

#include "ops/cli/client/api.h"
#include "ops/cli/faults/history.h"

namespace tutti::cli {

// Fills `left`: processes of the ended job on any node, and, where `tutti up` runs here, those that
// carry its mark. They are given a while to end.
void look_for_processes(Api& api, FaultHistory& history, std::chrono::milliseconds within);

// Whether all files of each listed checkpoint are there, with the sizes of its manifest.
void look_at_checkpoints(const boost::json::value& job, FaultHistory& history);

// Empty, or what is wrong with the checkpoint in this folder.
std::string checkpoint_problem(const std::string& folder);

// A backup of the ledger, replayed.
LedgerSeen look_at_ledger(Api& api, std::uint64_t job);

}  // namespace tutti::cli
