// A worker that is replaced in place is understood by the binary that takes over, of whatever later
// version.
//
// v1.txt holds a handover with every field set. What is added later goes into a file of its own,
// written by `TUTTI_GOLDEN_OUT=tests/golden/handover/NAME.txt handover_golden_test "[write]"`.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>

#include "tests/golden/kept_bytes.h"
#include "worker/agent/handover.h"

namespace tutti::worker {

namespace {

std::vector<std::string> kept() {
  std::vector<std::string> out;
  for (const golden::Row& row : golden::read_all_rows("tests/golden/handover")) {
    out.push_back(row.bytes);
  }
  return out;
}

}  // namespace

TEST_CASE("golden: every handover that an earlier worker left is taken, with all that it held") {
  const std::vector<std::string> bodies = kept();
  REQUIRE_FALSE(bodies.empty());
  for (const std::string& body : bodies) {
    CHECK(golden::lost_by<Handover>(body) == "");
    const auto handover = decode_handover(body);
    REQUIRE(handover);
    CHECK(handover->processes.size() == 2);
    CHECK(handover->state.processes.size() == 2);
    CHECK(handover->state.processes[1].finished.process != ProcessId{});
    CHECK(handover->state.spools.size() == 2);
  }
}

TEST_CASE("golden: every field of a handover is kept as it is written today") {
  INFO(golden::how_to_keep("tests/golden/handover", "handover_golden_test"));
  CHECK(golden::not_kept<Handover>(kept()) == "");
}

TEST_CASE("golden: write a handover", "[.][write]") {
  const char* file = std::getenv("TUTTI_GOLDEN_OUT");
  REQUIRE(file != nullptr);
  std::ofstream out(file);
  out << "# version, name, body; made by: TUTTI_GOLDEN_OUT=FILE handover_golden_test "
         "\"[write]\"\n";
  auto handover = sample::filled<Handover>();
  handover.version = 1;
  golden::write_row(out, {1, "Handover", encode_handover(handover)});
  CHECK(out.good());
}

}  // namespace tutti::worker
