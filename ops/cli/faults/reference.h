// The run that a disturbed job's weights are compared with: the same training, in peace.
//
// Units: steps. Errors: those of the API; deadline_exceeded.
#pragma once

#include <chrono>

#include "ops/cli/client/api.h"
#include "ops/cli/faults/history.h"
#include "ops/cli/faults/injection.h"
#include "ops/cli/session.h"

namespace tutti::cli {

// The same spec until `last`, without checkpoints, as a job of its own.
spec::JobSpec undisturbed_spec(const spec::JobSpec& spec, std::uint64_t last, std::uint64_t job);

// Makes it, as the file asks for, and fills history.reference; `job` is the API's answer. Cancelled
// if it is not over in time.
void make_reference(Api& api, Session& session, FaultUndo& undo, const boost::json::value& job,
                    FaultHistory& history, std::chrono::milliseconds within);

}  // namespace tutti::cli
