// The rank and its checkpoints: parts in the generation's private folder, and the rename that
// commits.
#include <algorithm>

#include "tests/simulation/cluster/sim_rank.h"

namespace tutti::simulation {

void SimRank::save_part(std::uint64_t step, Task then) {
  progress("checkpoint");
  writing_ = step;
  in_group(world_.some(0ms, shared_.storage.write_max), [this, step, then = std::move(then)] {
    writing_ = 0;
    const bool fails = shared_.storage.full || world_.rng().chance(load().save_failure);
    auto& parts = shared_.storage.parts[{start_.job, form_.generation, step}];
    if (!fails && !world_.breaks(Mutation::claim_part)) {
      parts[rank_] = {.value = value_, .whole = true};
    }
    rank::PartWritten written;
    written.generation = form_.generation;
    written.step = step;
    if (fails) {
      written.error = "no space left on device";
      world_.reached("a checkpoint's part could not be written");
    } else {
      written.files.push_back(
          {.name = "part-" + std::to_string(rank_), .bytes = 8, .hash = std::to_string(value_)});
    }
    tell(written);
    then();
  });
}

void SimRank::commit_checkpoint(const wire::CommitCheckpoint& order) {
  auto& committed = shared_.storage.committed;
  const std::pair<JobId, std::uint64_t> name{order.job, order.step};
  rank::CommitDone done{order.generation, order.step, "step-" + std::to_string(order.step), {}};
  if (shared_.storage.full) {
    done.folder.clear();
    done.error = "no space left on device";
    return tell(done);
  }
  if (committed.contains(name)) {
    world_.reached("a commit was repeated");
    return tell(done);
  }
  const auto parts = shared_.storage.parts.find({order.job, order.generation, order.step});
  const auto group = shared_.groups.find({order.job, order.generation});
  const bool known = parts != shared_.storage.parts.end() && group != shared_.groups.end();
  if (!known || parts->second.size() != group->second.size ||
      order.files.size() != group->second.size) {
    return violate("I14", "a checkpoint of step " + std::to_string(order.step) +
                              " is to be committed without all its parts");
  }
  for (const auto& [rank, part] : parts->second) {
    if (!part.whole || part.value != value_at(order.step)) {
      return violate("I14", "a checkpoint of step " + std::to_string(order.step) +
                                " is to be committed with a part that is not whole");
    }
  }
  committed[name] = value_at(order.step);
  prune(order);
  tell(done);
}

void SimRank::prune(const wire::CommitCheckpoint& order) {
  if (order.keep == 0) return;
  std::vector<std::uint64_t> steps;
  for (const auto& [name, value] : shared_.storage.committed) {
    if (name.first == order.job && name.second <= order.step) steps.push_back(name.second);
  }
  while (steps.size() > order.keep) {
    const std::uint64_t oldest = steps.front();
    steps.erase(steps.begin());
    const bool used =
        std::find(order.in_use.begin(), order.in_use.end(), oldest) != order.in_use.end();
    if (used) continue;
    shared_.storage.committed.erase({order.job, oldest});
    world_.reached("an old checkpoint was pruned");
  }
}

}  // namespace tutti::simulation
