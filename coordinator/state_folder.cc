#include "coordinator/state_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/json/serialize.hpp>

#include <cerrno>
#include <vector>

#include "protocol/base/secret.h"

namespace tutti::coordinator {

namespace json = boost::json;

namespace {

constexpr std::size_t kTokenBytes = 24;
constexpr std::size_t kSmallFileBytesMax = 4096;
constexpr unsigned kSecretMode = 0600;
constexpr const char* kReplacedKeys = "replaced.key";

// A file that says this already is left alone: a coordinator that starts anew on a full disk can
// still be found.
Result<> say(const std::filesystem::path& file, const std::string& content) {
  const Result<std::string> said = read_file(file, kSmallFileBytesMax);
  struct stat status {};
  const bool is_private = ::stat(file.c_str(), &status) == 0 && (status.st_mode & 077) == 0;
  if (said && *said == content && is_private) return {};
  return write_file_atomically(file, content, kSecretMode);
}

// Whoever made them held the lock.
void remove_copies(const std::filesystem::path& folder) {
  std::error_code ignored;
  std::vector<std::filesystem::path> left;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().filename().string().starts_with(kLedgerCopyPrefix))
      left.push_back(entry.path());
  }
  for (const std::filesystem::path& file : left) std::filesystem::remove(file, ignored);
}

}  // namespace

Result<StateFolder> StateFolder::open(const std::filesystem::path& path) {
  if (path.empty()) return Error{ErrorCode::invalid_argument, "no state folder is given"};
  std::error_code failed;
  std::filesystem::create_directories(path / "jobs", failed);
  if (failed) return errno_error("cannot make the state folder " + path.string(), failed.value());
  const std::filesystem::path lock = path / "coordinator.lock";
  FileDescriptor file(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kSecretMode));
  if (!file) return errno_error("cannot write to the state folder: " + lock.string(), errno);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return errno_error("cannot lock " + lock.string(), errno);
    return Error{ErrorCode::already_exists, "another coordinator runs in " + path.string()};
  }
  remove_copies(path);
  return StateFolder(std::filesystem::absolute(path), std::move(file));
}

Result<transport::KeyPair> StateFolder::keys() const {
  return transport::load_or_make_keys(path_ / "coordinator.key");
}

// The old ones first: whoever starts after a crash between the two finds them replaced by
// themselves.
Result<> StateFolder::replace_keys(const transport::KeyPair& keys,
                                   const ReplacedKeys& replaced) const {
  if (Result<> kept = write_replaced_keys(path_ / kReplacedKeys, replaced); !kept) return kept;
  Result<> written = write_file_atomically(
      path_ / "coordinator.key", keys.public_key + "\n" + keys.secret_key + "\n", kSecretMode);
  if (!written) forget_replaced_keys();
  return written;
}

std::optional<ReplacedKeys> StateFolder::replaced_keys() const {
  return read_replaced_keys(path_ / kReplacedKeys);
}

void StateFolder::forget_replaced_keys() const {
  std::error_code ignored;
  std::filesystem::remove(path_ / kReplacedKeys, ignored);
}

Result<std::string> StateFolder::secret(const std::string& name) const {
  Result<std::string> kept = read_file(path_ / name, kSmallFileBytesMax);
  if (kept) {
    while (!kept->empty() && kept->back() == '\n') kept->pop_back();
    if (!kept->empty()) return kept;
  } else if (kept.error().code != ErrorCode::not_found) {
    return kept;
  }
  std::string made = random_hex(kTokenBytes);
  if (Result<> written = write_file_atomically(path_ / name, made + "\n", kSecretMode); !written)
    return written.error();
  return made;
}

Result<std::string> StateFolder::api_token() const { return secret("token"); }
Result<std::string> StateFolder::join_token() const { return secret("join.token"); }

Ports StateFolder::last_ports() const {
  const Result<std::string> text = read_file(path_ / "ports.json", kSmallFileBytesMax);
  return text ? parse_ports(*text) : Ports{};
}

Result<> StateFolder::write_ports(const Ports& ports) const {
  return say(path_ / "ports.json", to_json(ports));
}

Result<> StateFolder::write_address(const std::string& url) const {
  return say(path_ / "address", url + "\n");
}

Result<> StateFolder::write_join(const Join& join) const {
  const json::object object{{"endpoint", join.endpoint},
                            {"server_key", join.server_key},
                            {"join_token", join.join_token}};
  return say(path_ / "join.json", json::serialize(object) + "\n");
}

}  // namespace tutti::coordinator
