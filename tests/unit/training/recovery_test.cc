// Losses of ranks at random points of a step, and what the survivors make of it.
#include <catch2/catch.hpp>

#include <latch>
#include <map>
#include <mutex>

#include "jobs/checkpoint/checkpoint_reader.h"
#include "jobs/checkpoint/checkpoint_writer.h"
#include "tests/unit/training/tiny_run.h"

namespace tutti::training {
namespace {

using test::TinyJob;

constexpr std::uint32_t kRanks = 3;

struct Loss {
  std::uint32_t rank = 0;
  std::uint64_t operation = 0;           // of the group, from 1; 0: none is lost
  std::size_t sent_before = 0;           // transfers of that operation that still leave
  std::latch* survives_until = nullptr;  // counted down by the first commit of rank 0
};

// Ends the group of one rank before a certain exchange, as a death would: the others see its
// sockets close. Some transfers of that exchange may have left already.
class Doomed final : public kernels::Communicator {
 public:
  Doomed(std::unique_ptr<kernels::Communicator> group, const Loss& loss)
      : group_(std::move(group)), loss_(loss), rank_(group_->rank()), size_(group_->size()) {}

  std::uint32_t rank() const override { return rank_; }
  std::uint32_t size() const override { return size_; }
  Result<> exchange(std::span<const kernels::Transfer> transfers) override {
    if (group_ && group_->operations() + 1 == loss_.operation) {
      std::vector<kernels::Transfer> some;
      for (const auto& transfer : transfers) {
        const bool sends = transfer.direction == kernels::Transfer::Direction::send;
        if (sends && some.size() < loss_.sent_before) some.push_back(transfer);
      }
      (void)group_->exchange(some);
      if (loss_.survives_until != nullptr) loss_.survives_until->wait();
      group_->abort("killed by the test");
      group_.reset();
    }
    if (!group_) return Error{ErrorCode::aborted, "killed by the test"};
    return group_->exchange(transfers);
  }
  void abort(std::string_view) noexcept override {}
  bool aborted() const noexcept override { return !group_; }
  std::int32_t lost_peer() const noexcept override { return -1; }
  std::uint64_t operations() const noexcept override { return group_ ? group_->operations() : 0; }

 private:
  std::unique_ptr<kernels::Communicator> group_;
  const Loss loss_;
  std::uint32_t rank_;
  std::uint32_t size_;
};

struct Member {
  Progress progress;
  std::unique_ptr<Trainer> trainer;
};

// Weight hashes by step; a step that is made again must give the same.
class History {
 public:
  void add(const StepRecord& record) {
    const std::lock_guard lock(mutex_);
    const std::string hash = kernels::to_string(record.weights);
    const auto [known, fresh] = hashes_.emplace(record.step, hash);
    if (!fresh && known->second != hash) conflict_ = true;
  }
  bool conflict() const { return conflict_; }
  const std::map<std::uint64_t, std::string>& hashes() const { return hashes_; }

 private:
  std::mutex mutex_;
  std::map<std::uint64_t, std::string> hashes_;
  bool conflict_ = false;
};

// What the coordinator decides: the newest step that any survivor holds whole; those who cannot
// reach it copy.
EnterPlan plan_from(const std::vector<Member>& members, std::uint64_t generation,
                    const std::string& root) {
  EnterPlan plan{
      .generation = generation, .base_step = 0, .checkpoint = "", .root = root, .copies = {}};
  std::uint32_t source = 0;
  for (std::uint32_t rank = 0; rank < members.size(); ++rank) {
    const Held held = members[rank].trainer->held();
    if (held.whole && held.step >= plan.base_step) {
      plan.base_step = held.step;
      source = rank;
    }
  }
  for (std::uint32_t rank = 0; rank < members.size(); ++rank) {
    const Held held = members[rank].trainer->held();
    const bool reaches = (held.whole && held.step == plan.base_step) ||
                         (held.whole && held.pending == plan.base_step && held.pending != 0);
    if (!reaches && plan.base_step > 0) plan.copies.push_back({source, rank});
  }
  return plan;
}

// One generation, up to the last step or to the loss.
void run_generation(const TrainingJob& job, std::vector<Member>& members, const EnterPlan& plan,
                    const Loss& loss, History& history) {
  auto groups = test::form_group(kRanks);
  if (loss.operation != 0) {
    groups[loss.rank] = std::make_unique<Doomed>(std::move(groups[loss.rank]), loss);
  }
  test::on_ranks(kRanks, [&](std::uint32_t rank) {
    Trainer& trainer = *members[rank].trainer;
    const auto entered = trainer.enter(*groups[rank], plan);
    bool alive = entered.ok();
    if (alive && entered->finished) history.add(*entered->finished);
    while (alive && trainer.state().step < job.last_step()) {
      auto outcome = trainer.step(*groups[rank], 0);
      alive = outcome.ok();
      if (alive) history.add(outcome->record);
      if (alive && rank == 0 && loss.survives_until != nullptr &&
          !loss.survives_until->try_wait()) {
        loss.survives_until->count_down();
      }
    }
    groups[rank].reset();
  });
  if (loss.operation != 0) {  // a new process takes the place
    members[loss.rank].trainer = std::make_unique<Trainer>(job, 1, members[loss.rank].progress);
  }
}

TEST_CASE(
    "recovery: ranks lost at any point of a step are replaced, and every hash stays the same") {
  const TinyJob tiny({.steps = 6});
  const auto job = tiny.open();
  History undisturbed;
  {
    std::vector<Member> members(kRanks);
    for (auto& member : members)
      member.trainer = std::make_unique<Trainer>(*job, 1, member.progress);
    run_generation(*job, members, plan_from(members, 1, tiny.checkpoints()), {}, undisturbed);
    REQUIRE(undisturbed.hashes().size() == 6);
  }
  Rng rng(11);
  for (int round = 0; round < 8; ++round) {
    std::vector<Member> members(kRanks);
    for (auto& member : members)
      member.trainer = std::make_unique<Trainer>(*job, 1, member.progress);
    History history;
    std::uint64_t generation = 1;
    std::uint64_t reached = 0;
    for (; generation <= 4; ++generation) {
      const Loss loss{.rank = static_cast<std::uint32_t>(rng.below(kRanks)),
                      .operation = generation == 4 ? 0 : 2 + rng.below(6),
                      .sent_before = static_cast<std::size_t>(rng.below(4))};
      CAPTURE(round, generation, loss.rank, loss.operation, loss.sent_before);
      const EnterPlan plan = plan_from(members, generation, tiny.checkpoints());
      CHECK(plan.base_step >= reached);  // no committed step is lost while a survivor holds it
      reached = plan.base_step;
      run_generation(*job, members, plan, loss, history);
    }
    CHECK_FALSE(history.conflict());
    CHECK(history.hashes() == undisturbed.hashes());
  }
}

TEST_CASE("recovery: a rank that missed one vote finishes the step alone, with the same weights") {
  const TinyJob tiny({.steps = 2});
  const auto job = tiny.open();
  std::vector<Member> members(kRanks);
  for (auto& member : members) member.trainer = std::make_unique<Trainer>(*job, 1, member.progress);
  History history;
  // Exchanges: 1 agreement, 2 and 3 reduction, 4 votes. Rank 2 votes to rank 0 only, then dies.
  std::latch committed(1);
  const Loss loss{.rank = 2, .operation = 4, .sent_before = 1, .survives_until = &committed};
  run_generation(*job, members, plan_from(members, 1, tiny.checkpoints()), loss, history);
  CHECK(members[0].trainer->held() == Held{true, 1, 0});
  CHECK(members[1].trainer->held() == Held{true, 0, 1});
  const EnterPlan plan = plan_from(members, 2, tiny.checkpoints());
  CHECK(plan.base_step == 1);
  REQUIRE(plan.copies.size() == 1);
  CHECK(plan.copies[0].to == 2);
  run_generation(*job, members, plan, {}, history);
  CHECK_FALSE(history.conflict());
  CHECK(members[1].trainer->held() == Held{true, 2, 0});
}

TEST_CASE("recovery: the record of a step that was finished alone outlives a second loss") {
  const TinyJob tiny({.steps = 2});
  const auto job = tiny.open();
  std::vector<Member> members(kRanks);
  for (auto& member : members) member.trainer = std::make_unique<Trainer>(*job, 1, member.progress);
  History before;
  std::latch committed(1);
  const Loss loss{.rank = 2, .operation = 4, .sent_before = 1, .survives_until = &committed};
  run_generation(*job, members, plan_from(members, 1, tiny.checkpoints()), loss, before);
  // Rank 1 finishes the step, and then rank 0, which made it too, dies in the copy to the newcomer.
  History after;
  run_generation(*job, members, plan_from(members, 2, tiny.checkpoints()),
                 {.rank = 0, .operation = 1}, after);
  CHECK(members[1].trainer->held() == Held{true, 1, 0});
  run_generation(*job, members, plan_from(members, 3, tiny.checkpoints()), {}, after);
  REQUIRE(after.hashes().size() == 2);
  CHECK(after.hashes().at(1) == before.hashes().at(1));
}

TEST_CASE("recovery: a group that shrinks and grows changes no bit") {
  const auto optimizer = GENERATE(as<std::string>{}, "adamw", "adamw8");
  CAPTURE(optimizer);
  TinyJob tiny({.steps = 6});
  tiny.spec().train.optimizer.name = optimizer;
  const auto job = tiny.open();
  History history;
  std::vector<Member> members(4);
  for (auto& member : members) {
    member.trainer = std::make_unique<Trainer>(*job, 1, member.progress);
  }
  std::uint64_t generation = 0;
  for (const std::uint32_t size : {3U, 1U, 4U, 2U, 1U, 3U}) {  // a step each
    auto groups = test::form_group(size);
    ++generation;
    EnterPlan plan{
        .generation = generation, .base_step = generation - 1, .root = tiny.checkpoints()};
    for (std::uint32_t rank = 1; rank < size && plan.base_step > 0; ++rank) {
      plan.copies.push_back({0, rank});
    }
    test::on_ranks(size, [&](std::uint32_t rank) {
      if (!members[rank].trainer->enter(*groups[rank], plan)) return;
      auto outcome = members[rank].trainer->step(*groups[rank], 0);
      if (outcome) history.add(outcome->record);
    });
  }
  CHECK_FALSE(history.conflict());
  Progress progress;
  Trainer alone(*job, 1, progress);
  const auto group = test::form_group(1);
  REQUIRE(alone.enter(*group[0], {.generation = 1, .root = tiny.checkpoints()}).ok());
  for (std::uint64_t step = 1; step <= 6; ++step) {
    const auto outcome = alone.step(*group[0], 0);
    REQUIRE(outcome.ok());
    CHECK(kernels::to_string(outcome->record.weights) == history.hashes().at(step));
  }
}

TEST_CASE(
    "recovery: a run that goes on from a checkpoint gives the hashes of one that never stopped") {
  const TinyJob tiny({.steps = 4});
  const auto job = tiny.open();
  History history;
  std::vector<Member> members(kRanks);
  for (auto& member : members) member.trainer = std::make_unique<Trainer>(*job, 1, member.progress);
  {
    auto groups = test::form_group(kRanks);
    std::vector<std::vector<checkpoint::FileEntry>> files(kRanks);
    test::on_ranks(kRanks, [&](std::uint32_t rank) {
      Trainer& trainer = *members[rank].trainer;
      if (!trainer.enter(*groups[rank], {.generation = 1, .root = tiny.checkpoints()})) return;
      while (trainer.state().step < job->last_step()) {
        auto outcome = trainer.step(*groups[rank], 0);
        if (!outcome) return;
        history.add(outcome->record);
        if (outcome->record.step != 2) continue;
        auto part = checkpoint::write_part(
            trainer.checkpoint_state(),
            {.root = tiny.checkpoints(), .generation = 1, .rank = rank, .ranks = kRanks});
        if (part) files[rank] = *part;
      }
    });
    checkpoint::CommitOrder order{.root = tiny.checkpoints(), .step = 2, .generation = 1};
    for (const auto& part : files) order.files.insert(order.files.end(), part.begin(), part.end());
    REQUIRE(checkpoint::commit(order).ok());
  }
  REQUIRE(history.hashes().size() == 4);
  // One rank, from the files of three; the newest checkpoint named does not exist, so the one
  // before is used.
  Progress progress;
  Trainer alone(*job, 2, progress);
  const auto group = test::form_group(1);
  const auto entered = alone.enter(*group[0], {.generation = 2,
                                               .base_step = 4,
                                               .checkpoint = tiny.checkpoints() + "/step-4",
                                               .root = tiny.checkpoints()});
  REQUIRE(entered.ok());
  CHECK(entered->step == 2);
  CHECK(entered->copied_bytes > 0);
  CHECK_FALSE(entered->save_is_due);
  while (alone.state().step < job->last_step()) {
    auto outcome = alone.step(*group[0], 0);
    REQUIRE(outcome.ok());
    history.add(outcome->record);
  }
  CHECK_FALSE(history.conflict());
}

}  // namespace
}  // namespace tutti::training
