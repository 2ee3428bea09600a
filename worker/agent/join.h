// How a worker finds its coordinator: join.json, and the address under which other nodes find this
// one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

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

// What `learned` says in the place of what `file` said when that was learned; otherwise `file`.
// Errors: not_found while the coordinator has not written it; corrupt; unavailable if HOST has no
// address.
Result<JoinInfo> read_join(const std::filesystem::path& file,
                           const std::filesystem::path& learned = {});

// Keeps what is to be used as long as `file` stays as it is: another join.json is newer.
Result<> keep_learned(const std::filesystem::path& learned, const JoinInfo& join,
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
