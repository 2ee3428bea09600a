#include <sqlite3.h>
#include <sys/resource.h>

#include <csignal>

#include "tests/unit/ledger/ledger_samples.h"

namespace tutti::coordinator::test {
namespace {

using tutti::test::TemporaryFolder;

void patch(const std::filesystem::path& folder, const char* sql) {
  sqlite3* database = nullptr;
  REQUIRE(sqlite3_open((folder / "ledger.sqlite").c_str(), &database) == SQLITE_OK);
  CHECK(sqlite3_exec(database, sql, nullptr, nullptr, nullptr) == SQLITE_OK);
  sqlite3_close(database);
}

// Files of this process may not grow beyond `bytes`: EFBIG, where a quota gives EDQUOT.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_CASE("ledger: a fact that is missing or changed is an error, not another history") {
  const TemporaryFolder folder;
  {
    auto ledger = open_ledger(folder.path());
    for (std::uint64_t job = 1; job <= 5; ++job) {
      const std::vector<Fact> facts{submitted(job)};
      REQUIRE(ledger->append(facts, {}).ok());
    }
  }
  SECTION("missing") { patch(folder.path(), "delete from facts where number = 3"); }
  SECTION("changed") {
    patch(folder.path(),
          "update facts set body = cast(replace(cast(body as text), 'ann', 'bob') as blob)"
          " where number = 4");
  }
  const auto past = open_ledger(folder.path())->recover();
  REQUIRE_FALSE(past.ok());
  CHECK(past.error().code == ErrorCode::corrupt);
  CHECK(past.error().message.find("restore a backup") != std::string::npos);
}

TEST_CASE("ledger: a fact of a newer version says which program to start") {
  const TemporaryFolder folder;
  {
    const std::vector<Fact> facts{submitted(1)};
    REQUIRE(open_ledger(folder.path())->append(facts, {}).ok());
  }
  patch(folder.path(), "insert into facts values (2, 9999, x'80')");
  const auto past = open_ledger(folder.path())->recover();
  REQUIRE_FALSE(past.ok());
  CHECK(past.error().code == ErrorCode::unsupported);
  CHECK(past.error().message.find("newer Tutti") != std::string::npos);
}

TEST_CASE("ledger: rows without a check, as version 1 wrote them, are read") {
  const TemporaryFolder folder;
  {
    const std::vector<Fact> facts{submitted(1), submitted(2)};
    REQUIRE(open_ledger(folder.path())->append(facts, {}).ok());
  }
  patch(folder.path(), "update facts set kind = kind & 65535; pragma user_version = 1");
  CHECK(facts_of(folder.path()).size() == 2);
}

TEST_CASE("ledger: a quota is a full disk: nothing of the batch is kept, and it goes on later") {
  const TemporaryFolder folder;
  auto ledger = open_ledger(folder.path());
  const std::vector<Fact> first{submitted(1)};
  REQUIRE(ledger->append(first, {}).ok());
  const std::vector<Fact> large{submitted(2, "", std::string(400'000, 's'))};
  {
    const FileSizeLimit limit(100'000);
    const auto refused = ledger->append(large, {});
    REQUIRE_FALSE(refused.ok());
    INFO(refused.error().message);
    CHECK(refused.error().code == ErrorCode::exhausted);
  }
  REQUIRE(ledger->append(large, {}).ok());
  CHECK(ledger->recover()->facts.size() == 2);
}

}  // namespace
}  // namespace tutti::coordinator::test
