// tutti-rank as real processes: what a worker sees of a start, a run, a loss, a wrong spec, an end.
#include <fmt/core.h>
#include <catch2/catch.hpp>

#include <filesystem>
#include <memory>

#include "protocol/base/file.h"
#include "tests/cluster/rank_process.h"
#include "tests/support/temporary_folder.h"

namespace tutti {
namespace {

using test::RankProcess;

struct Spec {
  std::string text;
  std::uint32_t vocabulary = 300;
  std::uint32_t sequence = 16;
  std::uint64_t steps = 4;
};

std::string yaml_of(const Spec& spec) {
  return fmt::format(
      "name: tiny\nkind: train\n"
      "model: {{family: llama, layers: 1, width: 32, heads: 2, vocabulary: {}}}\n"
      "data: {{text: [{}], sequence: {}}}\n"
      "train: {{steps: {}, batch: 8, seed: 3}}\n"
      "parallel: {{shards: 4}}\n"
      "resources: {{ranks: {{min: 1, max: 4}}}}\n",
      spec.vocabulary, spec.text, spec.sequence, spec.steps);
}

wire::StartRank start_order(const std::string& yaml, const std::string& folder, std::uint32_t rank,
                            std::uint32_t size) {
  wire::StartRank order;
  order.generation = {1};
  order.rank = rank;
  order.size = size;
  order.name = "tiny";
  order.kind = "train";
  order.spec = yaml;
  order.folder = folder;
  return order;
}

class TextFolder {
 public:
  TextFolder() {
    std::string text;
    for (int i = 0; i < 600; ++i)
      text += fmt::format("line {} of a text that says {} times nothing\n", i, i * 7 % 10);
    REQUIRE(write_file_atomically(this->text(), text).ok());
  }
  std::string text() const { return (folder_.path() / "text.txt").string(); }
  std::string job(const std::string& name = "job") const {
    std::filesystem::create_directories(folder_.path() / name);
    return (folder_.path() / name).string();
  }

 private:
  test::TemporaryFolder folder_;
};

using Ranks = std::vector<std::unique_ptr<RankProcess>>;

std::vector<wire::RankReady> all_ready(Ranks& ranks) {
  std::vector<wire::RankReady> ready;
  for (auto& rank : ranks) ready.push_back(rank->next<wire::RankReady>());
  return ready;
}

wire::FormGroup form_order(std::uint64_t generation, const std::vector<wire::RankReady>& ready) {
  wire::FormGroup order;
  order.generation = {generation};
  order.secret = "of generation " + std::to_string(generation);
  for (const auto& one : ready) order.addresses.push_back(one.address);
  return order;
}

std::string weights_of(const std::string& record) {
  return record.substr(record.find("\"weights\""));
}

TEST_CASE("tutti-rank: two processes train, save, commit, finish and stop") {
  const TextFolder files;
  Ranks ranks;
  for (std::uint32_t rank = 0; rank < 2; ++rank) {
    ranks.push_back(std::make_unique<RankProcess>(rank + 1));
    ranks[rank]->tell(start_order(yaml_of({.text = files.text()}), files.job(), rank, 2));
  }
  const wire::FormGroup form = form_order(1, all_ready(ranks));
  for (auto& rank : ranks) rank->tell(form);
  wire::CommitCheckpoint commit;
  commit.generation = {1};
  commit.step = 4;
  for (auto& rank : ranks) {
    CHECK(rank->next<wire::GroupFormed>().step == 0);
    const auto part = rank->next<wire::CheckpointPart>();
    CHECK(part.error.empty());
    CHECK(part.step == 4);
    commit.files.insert(commit.files.end(), part.files.begin(), part.files.end());
    CHECK(rank->next<wire::RankFinished>().failure == wire::FailureClass::none);
  }
  REQUIRE(ranks[0]->steps().size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(weights_of(ranks[0]->steps()[i]) == weights_of(ranks[1]->steps()[i]));
  }
  ranks[1]->tell(commit);
  const auto committed = ranks[1]->next<wire::CheckpointCommitted>();
  CHECK(committed.error.empty());
  CHECK(std::filesystem::exists(std::filesystem::path(committed.folder) / "manifest.json"));
  CHECK(std::filesystem::exists(std::filesystem::path(committed.folder) / "tokenizer.json"));
  for (auto& rank : ranks) {
    rank->tell(wire::StopRank{});
    CHECK(rank->wait_for_end() == 0);
  }
}

TEST_CASE(
    "tutti-rank: a killed peer is reported, and the survivor goes on with a newcomer from memory") {
  const TextFolder files;
  const std::string yaml = yaml_of({.text = files.text(), .steps = 1'000'000});  // it is stopped
  Ranks ranks;
  for (std::uint32_t rank = 0; rank < 2; ++rank) {
    ranks.push_back(std::make_unique<RankProcess>(rank + 1));
    ranks[rank]->tell(start_order(yaml, files.job(), rank, 2));
  }
  wire::FormGroup form = form_order(1, all_ready(ranks));
  for (auto& rank : ranks) rank->tell(form);
  (void)ranks[0]->next<wire::GroupFormed>();
  (void)ranks[0]->next<wire::FirstStepDone>();
  ranks[1]->kill();
  const auto broken = ranks[0]->next<wire::GenerationBroken>();
  CHECK(broken.suspect == 1);
  CHECK(broken.held.whole);
  CHECK(broken.held.step >= 1);

  ranks[1] = std::make_unique<RankProcess>(3);
  auto start = start_order(yaml, files.job(), 1, 2);
  start.generation = {2};
  ranks[1]->tell(start);
  ranks[0]->tell(wire::Regroup{{}, {2}, {}, 0, 2});
  const auto ready = all_ready(ranks);
  CHECK(ready[0].held == broken.held);
  CHECK_FALSE(ready[1].held.whole);
  form = form_order(2, ready);
  form.base_step = broken.held.step;
  form.copies = {{0, 1}};
  for (auto& rank : ranks) rank->tell(form);
  CHECK(ranks[0]->next<wire::GroupFormed>().copied_bytes == 0);
  const auto formed = ranks[1]->next<wire::GroupFormed>();
  CHECK(formed.step == broken.held.step);
  CHECK(formed.copied_bytes > 0);
  CHECK(ranks[1]->next<wire::FirstStepDone>().step == broken.held.step + 1);

  wire::SetFlags flags;
  flags.generation = {2};
  flags.stop = true;
  ranks[1]->tell(flags);
  const auto finished = ranks[0]->next<wire::RankFinished>();
  CHECK(ranks[1]->next<wire::RankFinished>().step == finished.step);
  CHECK(finished.step < 1'000'000);
}

TEST_CASE("tutti-rank: an ordered abort ends a group that waits, without a report of its own") {
  const TextFolder files;
  RankProcess rank(1);
  rank.tell(start_order(yaml_of({.text = files.text()}), files.job(), 0, 2));
  const auto ready = rank.next<wire::RankReady>();
  wire::FormGroup form = form_order(1, {ready, ready});  // nobody will come
  rank.tell(form);
  rank.tell(wire::AbortGeneration{{}, {1}, {}, "the other was lost"});
  rank.tell(wire::Regroup{{}, {2}, {}, 0, 1});
  const auto again = rank.next<wire::RankReady>();
  CHECK(again.generation == Generation{2});
  CHECK(again.address != ready.address);
  rank.tell(form_order(2, {again}));
  CHECK(rank.next<wire::GroupFormed>().generation == Generation{2});
}

TEST_CASE("tutti-rank: what a user can get wrong is the user's failure, in one line") {
  const TextFolder files;
  const std::string empty = files.job() + "/empty.txt";
  REQUIRE(write_file_atomically(empty, "").ok());
  struct Wrong {
    Spec spec;
    std::string says;
  };
  const Wrong cases[] = {
      {{.text = "/nowhere/missing.txt"}, "/nowhere/missing.txt"},
      {{.text = empty}, "empty"},
      {{.text = files.text(), .vocabulary = 50'000}, "50000"},
      {{.text = files.text(), .sequence = 60'000}, "60001"},
  };
  std::uint64_t process = 10;
  for (const Wrong& wrong : cases) {
    RankProcess rank(++process);
    rank.tell(
        start_order(yaml_of(wrong.spec), files.job("wrong-" + std::to_string(process)), 0, 1));
    const auto finished = rank.next<wire::RankFinished>();
    CHECK(finished.failure == wire::FailureClass::user);
    CHECK_THAT(finished.message, Catch::Matchers::Contains(wrong.says));
    CHECK(finished.message.find('\n') == std::string::npos);
    rank.tell(wire::StopRank{});
    CHECK(rank.wait_for_end() == 0);
  }
}

TEST_CASE("tutti-rank: a full disk fails the checkpoint, not the job") {
  const TextFolder files;
  RankProcess rank(1, 60'000);
  rank.tell(start_order(yaml_of({.text = files.text()}), files.job(), 0, 1));
  rank.tell(form_order(1, {rank.next<wire::RankReady>()}));
  (void)rank.next<wire::GroupFormed>();
  const auto part = rank.next<wire::CheckpointPart>();
  CHECK_THAT(part.error, Catch::Matchers::StartsWith("checkpoint of step 4: "));
  CHECK(part.files.empty());
  CHECK(rank.next<wire::RankFinished>().failure == wire::FailureClass::none);
  CHECK(rank.steps().size() == 4);
}

TEST_CASE("tutti-rank: it ends when its worker's end of the socket closes") {
  RankProcess rank(1);
  rank.close_link();
  CHECK(rank.wait_for_end() == 0);
}

}  // namespace
}  // namespace tutti
