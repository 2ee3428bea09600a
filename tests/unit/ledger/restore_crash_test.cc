// A restore that ends at any of its renames.
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "tests/unit/ledger/ledger_samples.h"

namespace {

// Renames that are still done; none below zero counts.
int renames_left = -1;

}  // namespace

// Takes the place of the system's in this program.
extern "C" int rename(const char* from, const char* to) noexcept {
  if (renames_left == 0) ::_exit(9);
  if (renames_left > 0) --renames_left;
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

namespace tutti::coordinator::test {
namespace {

using tutti::test::TemporaryFolder;
namespace fs = std::filesystem;

void fill(Ledger& ledger, std::uint64_t jobs) {
  for (std::uint64_t job = 1; job <= jobs; ++job) {
    const std::vector<Fact> facts{submitted(job)};
    REQUIRE(ledger.append(facts, {}).ok());
  }
}

// As a coordinator that was killed leaves it: what it knows is in the log.
void leave_ledger(const fs::path& folder, std::uint64_t jobs) {
  const TemporaryFolder used;
  auto ledger = open_ledger(used.path());
  fill(*ledger, jobs);
  fs::create_directories(folder);
  for (const char* name : {"ledger.sqlite", "ledger.sqlite-wal"})
    fs::copy_file(used.path() / name, folder / name);
}

// Whether it ran to its end.
bool restore_until(const fs::path& file, const fs::path& folder, int renames) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    renames_left = renames;
    ::_exit(restore_ledger(file, folder).ok() ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) != 1);
  return WEXITSTATUS(status) == 0;
}

TEST_CASE("restore: one that ends at any moment leaves one ledger whole, or none that is opened") {
  const TemporaryFolder source;
  leave_ledger(source.path(), 3);
  int crashes = 0;
  for (bool done = false; !done; ++crashes) {
    INFO("after " << crashes << " renames");
    const TemporaryFolder folder;
    const fs::path state = folder.path() / "state";
    leave_ledger(state, 5);
    done = restore_until(source.path() / "ledger.sqlite", state, crashes);
    const auto opened = Ledger::open({.folder = state});
    if (opened) {
      const std::size_t facts = (*opened)->recover()->facts.size();
      CHECK(facts == (done ? 4U : 5U));
      continue;
    }
    CHECK(opened.error().message.find("ledger restore") != std::string::npos);
    // It ends a second time, one rename later, and then is let finish.
    if (restore_until(source.path() / "ledger.sqlite", state, 1)) continue;
    REQUIRE(restore_ledger(source.path() / "ledger.sqlite", state).ok());
    CHECK(facts_of(state).size() == 4);
    fs::create_directories(folder.path() / "old");
    for (const char* suffix : {"", "-wal"}) {
      const fs::path kept = state / (std::string("ledger.sqlite.replaced") + suffix);
      if (fs::exists(kept))
        fs::copy_file(kept, folder.path() / "old" / (std::string("ledger.sqlite") + suffix));
    }
    CHECK(facts_of(folder.path() / "old").size() == 5);
  }
  CHECK(crashes >= 4);
}

}  // namespace
}  // namespace tutti::coordinator::test
