#include <catch2/catch.hpp>

#include <set>

#include "ops/cli/faults/schedule.h"

namespace tutti::cli {
namespace {

const std::string kHead = "spec: job.yaml\nfaults:\n  seed: 7\n  inject:\n";

Result<FaultFile> parse(const std::string& entries, const std::string& more = "") {
  return parse_fault_file(kHead + entries + more, "f.yaml");
}

std::string error_of(const std::string& entries, const std::string& more = "") {
  const Result<FaultFile> file = parse(entries, more);
  return file ? "" : file.error().message;
}

const FaultSetting kSetting{.ranks = 4, .steps = 200, .nodes = {"a", "b", "c"}};

std::vector<PlannedFault> schedule(const std::string& entries, std::uint64_t seed) {
  const Result<FaultFile> file = parse(entries);
  REQUIRE(file);
  const auto out = make_schedule(*file, seed, kSetting);
  REQUIRE(out);
  return *out;
}

TEST_CASE("fault file: every key is read, and what is left out has its default") {
  const Result<FaultFile> file = parse_fault_file(
      "name: storm\n"
      "spec: kjv.yaml\n"
      "set: [train.steps=60]\n"
      "faults:\n"
      "  seed: 9\n"
      "  inject:\n"
      "    - {fault: kill-rank, at: step 20}\n"
      "    - {fault: stop-rank, rank: 1, at: step 35..60, for: 1500ms, times: 2}\n"
      "    - {fault: slow-disk, node: a, every: 2s..5s, times: 3, delay: 1s}\n"
      "    - {fault: stop-rank, at: 3s, for: never}\n"
      "compare: verify\n"
      "expect: failed\n"
      "bound: 5s\n"
      "deadline: 1m\n",
      "f.yaml");
  REQUIRE(file);
  CHECK(file->name == "storm");
  CHECK(file->spec == "kjv.yaml");
  CHECK(file->set == std::vector<std::string>{"train.steps=60"});
  CHECK(file->seed == 9U);
  CHECK(file->compare == FaultCompare::verify);
  CHECK(file->expect == "failed");
  CHECK(file->bound_ms == 5'000);
  CHECK(file->deadline_ms == 60'000);
  REQUIRE(file->entries.size() == 4);
  CHECK(file->entries[0].kind == FaultKind::kill_rank);
  CHECK(file->entries[0].at == FaultSpan{FaultClock::step, 20, 20});
  CHECK_FALSE(file->entries[0].rank);
  CHECK(file->entries[1].rank == 1U);
  CHECK(file->entries[1].lasts_ms == 1'500);
  CHECK(file->entries[1].times == 2);
  CHECK(file->entries[2].every == FaultSpan{FaultClock::time, 2'000, 5'000});
  CHECK(file->entries[2].delay_ms == 1'000);
  CHECK(file->entries[2].lasts_ms == 2'000);
  CHECK(file->entries[3].lasts_ms == 0);

  const Result<FaultFile> least = parse("    - {fault: kill-worker, at: 1s}\n");
  REQUIRE(least);
  CHECK(least->compare == FaultCompare::undisturbed);
  CHECK(least->until == FaultUntil::end);
  CHECK(least->expect == "done");
}

TEST_CASE("fault file: what is wrong is named with its place and the nearest key") {
  CHECK(error_of("    - {fault: kil-rank, at: 1s}\n") ==
        "f.yaml:5:15: unknown value \"kil-rank\" for fault; did you mean \"kill-rank\"?");
  CHECK(error_of("    - {fault: kill-rank, at: 1s, rnak: 1}\n") ==
        "f.yaml:5:34: unknown key \"rnak\"; did you mean \"rank\"?");
  CHECK(error_of("    - {fault: kill-rank, at: 1s}\n", "dedline: 5s\n") ==
        "f.yaml:6:1: unknown key \"dedline\"; did you mean \"deadline\"?");
  CHECK(error_of("    - {at: 1s}\n") == "f.yaml:5:7: fault is missing: which one");
  CHECK(
      error_of("    - {fault: kill-rank}\n").starts_with("f.yaml:5:15: kill-rank needs a moment"));
  CHECK(error_of("    - {fault: kill-rank, at: soon}\n").starts_with("f.yaml:5:30: at must be"));
  CHECK(error_of("    - {fault: kill-rank, at: 5s..2s}\n").starts_with("f.yaml:5:30: at must be"));
  CHECK(error_of("    - {fault: kill-rank, at: 1s, for: 2s}\n") ==
        "f.yaml:5:39: \"for\" has no meaning for kill-rank");
  CHECK(error_of("    - {fault: cut, rank: 1, at: 1s}\n") ==
        "f.yaml:5:26: \"rank\" has no meaning for cut");
  CHECK(
      error_of("    - {fault: cut, at: 1s, for: never}\n").starts_with("f.yaml:5:33: a cut ends"));
  CHECK(
      error_of("    - {fault: kill-rank, at: 1s, times: 3}\n").starts_with("f.yaml:5:41: all of"));
  CHECK(error_of("    - {fault: kill-rank, at: 1s, every: step 5}\n").starts_with("f.yaml:5:41:"));
  CHECK(error_of("    - {fault: kill-rank, every: 0s}\n").starts_with("f.yaml:5:33: every must"));
  CHECK(error_of("    []\n") == "f.yaml:5:5: faults.inject is empty");
  CHECK(error_of("    - {fault: kill-rank, at: 1s}\n", "job: 7\n")
            .starts_with("f.yaml:6:6: give either spec"));
  CHECK(error_of("    - {fault: kill-rank, at: 1s}\n", "until: recovered\nexpect: done\n")
            .starts_with("f.yaml:7:9: expect says"));
}

TEST_CASE(
    "fault file: a job that is left running is compared with nothing unless it is asked for") {
  CHECK(parse("    - {fault: cut, at: 1s}\n", "until: recovered\n")->compare == FaultCompare::none);
  CHECK(parse("    - {fault: cut, at: 1s}\n", "until: recovered\ncompare: verify\n")->compare ==
        FaultCompare::verify);
  CHECK(parse("    - {fault: cut, at: 1s}\n", "until: recovered\n")->expect == "running");
}

TEST_CASE("fault file: moments print as they were written") {
  for (const char* text : {"3s", "2s..5s", "step 20", "step 20..80", "1500ms", "0s..1m"}) {
    const auto span = parse_fault_span(text);
    REQUIRE(span);
    CHECK(print_fault_span(*span) == text);
  }
  for (const char* text :
       {"", "step", "step x", "20", "-1s", "5s..", "..5s", "step 3..2", "9999d"}) {
    CHECK_FALSE(parse_fault_span(text));
  }
}

const std::string kStorm =
    "    - {fault: kill-rank, every: 2s..5s, times: 20}\n"
    "    - {fault: kill-worker, at: step 10..190, times: 10}\n"
    "    - {fault: stop-rank, at: step 40}\n";

TEST_CASE("fault schedule: the same seed gives the same schedule, another one another") {
  const auto one = schedule(kStorm, 7);
  REQUIRE(one.size() == 31);
  CHECK(schedule(kStorm, 7) == one);
  std::set<std::string> different;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    different.insert(schedule_table(schedule(kStorm, seed), Paint::plain));
  }
  CHECK(different.size() == 20);
}

TEST_CASE("fault schedule: moments and victims lie in what was asked for, and all of it is drawn") {
  std::set<std::uint32_t> ranks;
  std::set<std::string> nodes;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    std::uint64_t before = 0;
    std::uint32_t number = 0;
    for (const PlannedFault& fault : schedule(kStorm, seed)) {
      CHECK(fault.number == ++number);
      if (fault.clock == FaultClock::time) {
        CHECK(fault.at >= before + 2'000);
        CHECK(fault.at <= before + 5'000);
        before = fault.at;
      } else {
        CHECK(fault.at >= 10);
        CHECK(fault.at <= 190);
      }
      if (fault.kind == FaultKind::kill_rank) ranks.insert(fault.rank);
      if (fault.kind == FaultKind::kill_worker) nodes.insert(fault.node);
    }
  }
  CHECK(ranks == std::set<std::uint32_t>{0, 1, 2, 3});
  CHECK(nodes == std::set<std::string>{"a", "b", "c"});
}

TEST_CASE("fault schedule: an entry draws for itself, so that others may go or be named") {
  const auto of_kind = [](const std::vector<PlannedFault>& all, FaultKind kind) {
    std::vector<PlannedFault> out;
    for (PlannedFault fault : all) {
      fault.number = 0;
      if (fault.kind == kind) out.push_back(fault);
    }
    return out;
  };
  const std::string first = "    - {fault: kill-rank, every: 2s..5s, times: 20}\n";
  CHECK(of_kind(schedule(kStorm, 7), FaultKind::kill_rank) ==
        of_kind(schedule(first, 7), FaultKind::kill_rank));
  // Whom it strikes moves no moment.
  auto named = schedule("    - {fault: kill-rank, rank: 3, every: 2s..5s, times: 20}\n", 7);
  auto drawn = schedule(first, 7);
  REQUIRE(named.size() == drawn.size());
  for (std::size_t i = 0; i < named.size(); ++i) {
    CHECK(named[i].rank == 3);
    CHECK(named[i].at == drawn[i].at);
  }
}

TEST_CASE("fault schedule: at and every begin at the one and go on by the other") {
  const auto faults =
      schedule("    - {fault: kill-rank, at: step 5, every: step 10, times: 3}\n", 1);
  REQUIRE(faults.size() == 3);
  CHECK(faults[0].at == 5);
  CHECK(faults[1].at == 15);
  CHECK(faults[2].at == 25);
}

TEST_CASE("fault schedule: what the job or the cluster has not is refused at its entry") {
  const auto refused = [](const std::string& entry, const FaultSetting& setting) {
    const Result<FaultFile> file = parse(entry);
    REQUIRE(file);
    const auto made = make_schedule(*file, 1, setting);
    return made ? std::string() : made.error().message;
  };
  CHECK(refused("    - {fault: kill-rank, rank: 4, at: 1s}\n", kSetting) ==
        "f.yaml:5:7: there is no rank 4: the job has ranks 0 to 3");
  CHECK(refused("    - {fault: cut, node: aa, at: 1s}\n", kSetting)
            .starts_with("f.yaml:5:7: there is no node \"aa\""));
  CHECK(refused("    - {fault: cut, at: step 200}\n", kSetting) ==
        "f.yaml:5:7: a cut would come at step 200, and the job ends with step 200");
  CHECK(refused("    - {fault: cut, at: step 3}\n", {.ranks = 2, .steps = 0, .nodes = {"a"}}) ==
        "f.yaml:5:7: the job has no steps; give times, such as at: 3s");
  const std::string many = "    - {fault: cut, every: 1s, times: 1000}\n";
  CHECK(refused(many + many, kSetting) == "f.yaml:6:7: the schedule has more than 1000 faults");
}

}  // namespace
}  // namespace tutti::cli
