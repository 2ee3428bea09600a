// How a worker finds its coordinator: join.json, and the address under which other nodes find this
// one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/file.h"
#include "protocol/base/result.h"

namespace tutti::worker {

// join.json as the coordinator leaves it (cluster_config.h).
struct JoinInfo {
  std::string endpoint;    // tcp://HOST:PORT
  std::string host;        // of it, as a numeric address
  std::string server_key;  // Z85
  std::string join_token;

  bool operator==(const JoinInfo&) const = default;
};

// What the coordinator said of its new keys.
struct Learned {
  JoinInfo join;
  std::optional<JoinInfo> before;  // what led to it until then, if its key was another
  WallTime at;
};

// So long after that the key of before may still be good: the longest overlap that a coordinator
// takes.
inline constexpr Duration kOldKeyWithin = std::chrono::hours(30 * 24);

// Where to look for the coordinator, one after the other until one answers: `file`; in its place
// what was learned since it was written: the new key on the port that was said with it, the new key
// on the port of `file` (the coordinator comes back to its own after the overlap, or a crash in
// it), and what was good before, for at most kOldKeyWithin. Errors: not_found while the coordinator
// has not written it; corrupt; unavailable if HOST has no address.
Result<std::vector<JoinInfo>> read_join(const std::filesystem::path& file,
                                        const std::filesystem::path& learned = {},
                                        WallTime now = wall_now());

// Keeps what is to be used as long as `file` stays as it is: another join.json is newer.
Result<> keep_learned(const std::filesystem::path& path, const Learned& learned,
                      const std::filesystem::path& file);

// tcp://HOST:PORT with another port.
std::string with_port(const std::string& endpoint, std::uint16_t port);

// The part that reads text: HOST stays as it is written there. Errors: corrupt.
Result<JoinInfo> parse_join(const std::string& json);

// The address of the interface through which `host` is reached: what other nodes can connect to.
Result<std::string> local_address(const std::string& host);

// 127.0.0.0/8 or ::1: a cluster of one machine.
bool is_loopback(const std::string& address);

struct ReservedAddress {
  FileDescriptor socket;  // holds the port until the program is about to start
  std::string address;    // HOST:PORT
};

Result<ReservedAddress> reserve_address(const std::string& local);

}  // namespace tutti::worker
