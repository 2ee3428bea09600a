// `tutti worker`: one worker process from its configuration to its exit code.
//
// Call it on the main thread, once. It locks and makes its state folder, ends what an earlier
// worker on that folder left behind, waits for join.json, joins, and runs until SIGTERM or SIGINT;
// ranks are stopped quietly first, within seconds.
//
// Exit codes (DESIGN §11): 0 told to end; 2 its configuration or state folder cannot be used (one
// line says why); 3 no coordinator could be found at first; 5 not admitted.
#pragma once

#include <string>

#include "protocol/base/result.h"
#include "protocol/spec/cluster_config.h"

namespace tutti::worker {

int run_worker(const spec::WorkerConfig& config);

// Runs nothing: what this binary, with that configuration, says to the worker that it is to go on
// for (next_binary.h). Errors: invalid_argument, and what the state folder says.
Result<std::string> check_worker(const spec::WorkerConfig& config);

// Ends what a worker that was killed left running, as the next one on its folder would; nothing
// while one runs there. Takes seconds at most.
void clean_up_after_worker(const spec::WorkerConfig& config);

}  // namespace tutti::worker
