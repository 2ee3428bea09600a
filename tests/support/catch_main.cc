// main of every test binary: Catch's, and test cases that are skipped, which Catch 2 lacks.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>

#include "tests/support/skip.h"

namespace {

constexpr int kSkipped = 77;

struct Progress {
  std::string now;  // the test case that runs
  std::size_t begun = 0;
  std::set<std::string> skipped;
};

Progress& progress() {
  static Progress all;
  return all;
}

class Listener final : public Catch::TestEventListenerBase {
 public:
  using TestEventListenerBase::TestEventListenerBase;
  void testCaseStarting(const Catch::TestCaseInfo& test) override {
    TestEventListenerBase::testCaseStarting(test);
    progress().now = test.name;
    ++progress().begun;
  }
};
CATCH_REGISTER_LISTENER(Listener)

void say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
  const char* const file = std::getenv("TUTTI_SKIPPED");
  if (file == nullptr) return;
  if (std::FILE* out = std::fopen(file, "a")) {
    std::fprintf(out, "%s\n", line.c_str());
    std::fclose(out);
  }
}

}  // namespace

namespace tutti::test {

void skip(std::string_view why) {
  progress().skipped.insert(progress().now);
  say("skipped: " + progress().now + ": " + std::string(why));
}

void skip_part(std::string_view what) {
  say("skipped a part: " + progress().now + ": " + std::string(what));
}

}  // namespace tutti::test

int main(int argc, char* argv[]) {
  const int result = Catch::Session().run(argc, argv);
  const Progress& all = progress();
  const bool nothing_ran = all.begun != 0 && all.skipped.size() == all.begun;
  if (result == 0) return nothing_ran ? kSkipped : 0;
  return result == kSkipped ? 1 : result;  // Catch's is the number of failures
}
