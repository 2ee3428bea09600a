#include "ops/cli/arguments.h"

#include <catch2/catch.hpp>

#include "ops/cli/session.h"
#include "ops/cli/spec_file.h"
#include "ops/cli/up/state_files.h"
#include "ops/cli/up/supervisor.h"
#include "protocol/spec/parse.h"
#include "tests/support/temporary_folder.h"

namespace tutti::cli {
namespace {

struct Parsed {
  std::uint64_t job = 0;
  std::vector<std::string> overrides;
  std::optional<std::uint64_t> rank;
  bool follow = false;
  std::string message;  // of the error
};

Parsed parse(const std::vector<std::string>& words) {
  Parsed parsed;
  Arguments arguments("logs", "Output of a job.");
  arguments.number("JOB", parsed.job, "job id");
  arguments.repeated("--set", parsed.overrides, "set one key");
  arguments.option("--rank", parsed.rank, "only this rank's");
  arguments.flag("-f,--follow", parsed.follow, "go on");
  const auto outcome = arguments.parse(words);
  if (!outcome) parsed.message = outcome.error().message;
  return parsed;
}

TEST_CASE("arguments: words, flags and options are read in any order") {
  const Parsed parsed = parse({"-f", "7", "--rank", "2", "--set", "a.b=[1, 2]", "--set=c=d"});
  CHECK(parsed.message.empty());
  CHECK(parsed.job == 7);
  CHECK(parsed.rank == 2U);
  CHECK(parsed.follow);
  CHECK(parsed.overrides == std::vector<std::string>{"a.b=[1, 2]", "c=d"});
  CHECK_FALSE(parse({"7"}).rank);
}

TEST_CASE("arguments: an error is one line and names what is near") {
  CHECK(parse({"7", "--folow"}).message == "unknown option --folow; did you mean --follow?");
  CHECK(parse({}).message.find("JOB") != std::string::npos);
  CHECK(parse({"seven"}).message.find("seven") != std::string::npos);
  CHECK_FALSE(parse({"7", "8"}).message.empty());
  CHECK_FALSE(parse({"-1"}).message.empty());
}

TEST_CASE("exit codes: every kind of error has the one that scripts rely on") {
  CHECK(exit_code_of(ErrorCode::invalid_argument) == 2);
  CHECK(exit_code_of(ErrorCode::not_found) == 2);
  CHECK(exit_code_of(ErrorCode::unsupported) == 2);
  CHECK(exit_code_of(ErrorCode::unavailable) == 3);
  CHECK(exit_code_of(ErrorCode::deadline_exceeded) == 3);
  CHECK(exit_code_of(ErrorCode::internal) == 4);
  CHECK(exit_code_of(ErrorCode::permission_denied) == 5);
  CHECK(exit_code_of(ErrorCode::exhausted) == 5);
}

TEST_CASE("spec file: paths become absolute from the folder of the file") {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "job.yaml";
  REQUIRE(write_file_atomically(file,
                                "name: a\nkind: train\nmodel: {path: ../m}\ndata: {tokens: "
                                "[/abs/t.npy, t.npy], sequence: 8}\n"
                                "train: {steps: 1, batch: 3}\n"));
  const Result<spec::JobSpec> spec = load_spec_file(file.string(), {"train.resume=c/step-2"});
  REQUIRE(spec);
  CHECK(spec->model.path == folder.path().parent_path() / "m");
  CHECK(spec->data.tokens ==
        std::vector<std::string>{"/abs/t.npy", (folder.path() / "t.npy").string()});
  CHECK(spec->train.resume == folder.path() / "c" / "step-2");
  CHECK(load_spec_file((folder.path() / "none.yaml").string(), {}).error().code ==
        ErrorCode::not_found);
}

TEST_CASE("state folder: one `tutti up` at a time, named to the second") {
  const test::TemporaryFolder folder;
  const auto state = folder.path() / "state";
  Result<FileDescriptor> lock = lock_state_folder(state);
  REQUIRE(lock);
  REQUIRE(write_up_state(state, {.up = 77, .coordinator = 78, .worker = 0, .faults = true}));
  CHECK(*read_up_state(state) == UpState{77, 78, 0, true});
  const Result<FileDescriptor> second = lock_state_folder(state);
  REQUIRE_FALSE(second);
  CHECK(second.error().code == ErrorCode::already_exists);
  CHECK(second.error().message.find("(tutti up, pid 77)") != std::string::npos);
  lock->reset();
  CHECK(lock_state_folder(state).ok());
}

TEST_CASE("state folder: one that cannot be made is one clear line") {
  const test::TemporaryFolder folder;
  REQUIRE(write_file_atomically(folder.path() / "file", ""));
  const Result<FileDescriptor> lock = lock_state_folder(folder.path() / "file" / "state");
  REQUIRE_FALSE(lock);
  CHECK(lock.error().message.find("choose another with --state") != std::string::npos);
}

TEST_CASE("supervisor: a part that keeps dying waits longer each time and is given up at last") {
  RestartPolicy policy;
  Duration longest{0};
  for (int death = 1; death <= 10; ++death) {
    const auto pause = policy.after_exit(std::chrono::milliseconds(1), RestartPolicy::Cause::own);
    REQUIRE(pause);
    CHECK(*pause >= longest);
    longest = *pause;
  }
  CHECK(longest == std::chrono::seconds(5));
  CHECK_FALSE(policy.after_exit(std::chrono::milliseconds(1), RestartPolicy::Cause::own));
}

TEST_CASE("supervisor: a part that lived long starts again at once and is never given up") {
  RestartPolicy policy;
  for (int death = 0; death < 100; ++death) {
    CHECK(policy.after_exit(std::chrono::minutes(1), RestartPolicy::Cause::own) ==
          Duration(std::chrono::milliseconds(100)));
  }
}

TEST_CASE("supervisor: a part that others kill is started again however often that is") {
  RestartPolicy policy;
  for (int death = 0; death < 100; ++death) {
    const auto pause =
        policy.after_exit(std::chrono::milliseconds(1), RestartPolicy::Cause::killed);
    REQUIRE(pause);
    CHECK(*pause <= std::chrono::seconds(5));
  }
}

TEST_CASE(
    "supervisor: a part that is refused at its start ends all, one that had worked does not") {
  RestartPolicy policy;
  CHECK(policy.after_exit(std::chrono::minutes(1), RestartPolicy::Cause::refused));
  CHECK_FALSE(policy.after_exit(std::chrono::milliseconds(1), RestartPolicy::Cause::refused));
}

}  // namespace
}  // namespace tutti::cli
