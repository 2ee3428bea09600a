#include "ops/cli/up/state_files.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

#include <cerrno>
#include <limits>
#include <thread>
#include <utility>

#include "ops/cli/client/fields.h"

namespace tutti::cli {

namespace {

constexpr std::uint64_t kUpStateBytesMax = 4'096;

Result<boost::json::value> json_in(std::string_view text) {
  boost::system::error_code failed;
  boost::json::value json =
      boost::json::parse(boost::json::string_view(text.data(), text.size()), failed);
  if (failed) return Error{ErrorCode::corrupt, "it is not JSON"};
  return json;
}

// Whoever signals it must not mean another, or all.
pid_t pid_of(const boost::json::value& json, std::string_view key) {
  const std::int64_t pid = whole_of(json, key);
  return pid > 0 && pid <= std::numeric_limits<pid_t>::max() ? static_cast<pid_t>(pid) : 0;
}

}  // namespace

std::string to_json(const UpState& state) {
  return json_line(boost::json::object{{"pid", state.up},
                                       {"coordinator", state.coordinator},
                                       {"worker", state.worker},
                                       {"faults", state.faults}});
}

Result<UpState> parse_up_state(std::string_view text) {
  const Result<boost::json::value> json = json_in(text);
  if (!json) return json.error();
  return UpState{pid_of(*json, "pid"), pid_of(*json, "coordinator"), pid_of(*json, "worker"),
                 flag_of(*json, "faults")};
}

Result<WorkerState> parse_worker_state(std::string_view text) {
  Result<boost::json::value> json = json_in(text);
  if (!json) return json.error();
  WorkerState out{.pid = pid_of(*json, "pid"),
                  .restarts = whole_of(*json, "restarts"),
                  .refused = whole_of(*json, "refused"),
                  .said = {}};
  out.said = *std::move(json);
  return out;
}

Result<> write_up_state(const std::filesystem::path& folder, const UpState& state) {
  return write_file_atomically(folder / "up.json", to_json(state), 0600);
}

Result<UpState> read_up_state(const std::filesystem::path& folder) {
  const Result<std::string> text = read_file(folder / "up.json", kUpStateBytesMax);
  if (!text) {
    return Error{ErrorCode::not_found, fmt::format("no `tutti up` runs in {}", folder.string())};
  }
  Result<UpState> state = parse_up_state(*text);
  if (!state) return std::move(state).error().with_context((folder / "up.json").string());
  return state;
}

Result<FileDescriptor> lock_state_folder(const std::filesystem::path& folder) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) {
    return errno_error(fmt::format("cannot make the state folder {} (choose another with --state)",
                                   folder.string()),
                       failed.value());
  }
  const std::filesystem::path path = folder / "up.lock";
  FileDescriptor lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) {
    return errno_error(
        fmt::format("cannot write in the state folder {} (choose another with --state)",
                    folder.string()),
        errno);
  }
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return errno_error("cannot lock " + path.string(), errno);
    const Result<UpState> other = read_up_state(folder);
    return Error{
        ErrorCode::already_exists,
        fmt::format("a cluster already runs in {}{}; stop it first, or choose another folder "
                    "with --state",
                    folder.string(), other ? fmt::format(" (tutti up, pid {})", other->up) : "")};
  }
  ::chmod(folder.c_str(), 0700);
  return lock;
}

void wait_for_predecessors(const std::filesystem::path& folder, Duration within) {
  const Instant until = monotonic_now() + within;
  for (const auto& path : {folder / "coordinator.lock", folder / "worker" / "lock"}) {
    const FileDescriptor lock(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    while (lock && ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0 && monotonic_now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
}

}  // namespace tutti::cli
