// The verbs of `tutti`, in one table. To add one: a function that declares its arguments and
// returns what it does, and a row in verbs.cc.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/cli/arguments.h"
#include "ops/cli/session.h"

namespace tutti::cli {

// Runs with the arguments parsed; gives the exit code.
using Action = std::function<int(Session&)>;

struct Verb {
  std::string_view name;   // one word, or two: "fault kill-rank"
  std::string_view group;  // heading in `tutti help`
  std::string_view usage;  // what follows the name, for `tutti help`
  std::string_view summary;
  Action (*declare)(Arguments& arguments) = nullptr;  // or
  int (*pass)(const std::vector<std::string>& words,
              Session& session) = nullptr;  // parses the words itself
};

std::span<const Verb> verbs();

// What `tutti VERB --help` shows of its use (examples.cc); empty if there is nothing.
std::string_view examples_of(std::string_view verb);

// Parses `words`, those behind the verb's name, as verb.declare says, and `-o`; then acts.
int run_declared(const Verb& verb, const std::vector<std::string>& words, Session& session);

// Finds the verb and runs it. `words` are those behind the program's name.
int run_verbs(const std::vector<std::string>& words);

// verbs/cluster_verbs.cc
Action declare_up(Arguments& arguments);
Action declare_coordinator(Arguments& arguments);
Action declare_worker(Arguments& arguments);
// verbs/submit_verb.cc
Action declare_submit(Arguments& arguments);
Action declare_plan(Arguments& arguments);
// verbs/job_verbs.cc
Action declare_jobs(Arguments& arguments);
Action declare_job(Arguments& arguments);
Action declare_explain(Arguments& arguments);
Action declare_wait(Arguments& arguments);
Action declare_cancel(Arguments& arguments);
// verbs/stream_verbs.cc
Action declare_steps(Arguments& arguments);
Action declare_logs(Arguments& arguments);
Action declare_events(Arguments& arguments);
// verbs/node_verbs.cc
Action declare_nodes(Arguments& arguments);
Action declare_node(Arguments& arguments);
Action declare_drain(Arguments& arguments);
Action declare_undrain(Arguments& arguments);
// verbs/worker_verbs.cc
Action declare_worker_restart(Arguments& arguments);
// verbs/top_verb.cc
Action declare_top(Arguments& arguments);
// verbs/doctor_verb.cc
Action declare_doctor(Arguments& arguments);
// verbs/token_verbs.cc
Action declare_token_create(Arguments& arguments);
Action declare_token_revoke(Arguments& arguments);
Action declare_token_list(Arguments& arguments);
Action declare_keys_rotate(Arguments& arguments);
Action declare_audit(Arguments& arguments);
// verbs/ledger_verbs.cc
Action declare_ledger_backup(Arguments& arguments);
Action declare_ledger_restore(Arguments& arguments);
Action declare_ledger_check(Arguments& arguments);
// verbs/fault_verbs.cc
Action declare_kill_rank(Arguments& arguments);
Action declare_stop_rank(Arguments& arguments);
Action declare_continue_rank(Arguments& arguments);
Action declare_cut(Arguments& arguments);
Action declare_slow_disk(Arguments& arguments);
Action declare_heal(Arguments& arguments);
Action declare_kill_worker(Arguments& arguments);
Action declare_kill_coordinator(Arguments& arguments);
// verbs/fault_run_verb.cc
Action declare_fault_run(Arguments& arguments);
// verbs/verify_verb.cc
Action declare_verify(Arguments& arguments);
// verbs/spec_verbs.cc
Action declare_spec_check(Arguments& arguments);
Action declare_spec_keys(Arguments& arguments);
// verbs/compute_verbs.cc
int pass_to_rank(const std::vector<std::string>& words, Session& session);
int pass_generate(const std::vector<std::string>& words, Session& session);
// verbs/check_verb.cc
int pass_check(const std::vector<std::string>& words, Session& session);
// verbs/check_disk_verb.cc
Action declare_check_disk(Arguments& arguments);
// Ends with usage where `--deadline` is none; of both of these.
std::optional<int> refuse_deadline(double seconds);

}  // namespace tutti::cli
