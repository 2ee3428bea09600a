// Rules that the simulated machines can be told to break, one at a time, to prove that a checker
// sees it.
//
// The broken part is always the simulator's own host or disk, never the code under test; the table
// in mutation.cc names the invariant that has to catch each. mutation_test.cc runs them all.
#pragma once

#include <span>
#include <string_view>

namespace tutti::simulation {

enum class Mutation {
  none,
  speak_before_sync,
  forget_journal,
  lose_key,
  drop_key,
  replay_twice,
  refuse_and_keep,
  obey_old_generation,
  outlive_silence,
  form_incomplete,
  miscount_free,
  report_exit_early,
  revive_ended,
  blame_user,
  kill_on_silence,
  skip_sample,
  claim_part,
  load_other_state,
  lose_events,
  ack_unstored,
  drop_answer,
  answer_twice,
  lose_orders,
  keep_history,
  forget_drain,
  hide_slots,
  lose_at_once,
  lose_dependencies,
  lose_priority,
  lose_quotas,
  keep_quotas,
  lose_labels,
  lose_device,
  lose_memory,
  lose_device_memory,
  claim_profile,
  lose_delay,
  more_ranks,
  lose_cores,
  lose_budget,
  lose_steps,
  swallow_finish,
  copy_unsynced,
  hide_refusal,
  lose_wait,
  outlive_limit,
  one_owner,
  old_clock,
  raise_priority,
  pass_heartbeats,
  claim_slots,
  many_owners,
  promise_late,
  hide_holders,
};

struct MutationRow {
  Mutation mutation;
  std::string_view name;
  std::string_view caught_by;  // names of invariants, any of which is right
  std::string_view scenario;   // that meets it
  std::string_view what;
  // What it has to be caught by, where an invariant has several assertions; empty: any of them.
  std::string_view says = {};
};

std::span<const MutationRow> mutations();
const MutationRow* find_mutation(std::string_view name);

}  // namespace tutti::simulation
