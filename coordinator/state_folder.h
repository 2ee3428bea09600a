// The coordinator's state folder: its lock, secrets and the files that others find the cluster by.
//
// Ownership: the lock is held as long as the StateFolder lives. Errors: already_exists (another
// coordinator runs there), permission_denied (read-only), those of the files.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "coordinator/ports_file.h"
#include "coordinator/replaced_keys.h"
#include "protocol/base/file.h"
#include "protocol/base/result.h"
#include "protocol/transport/keys.h"

namespace tutti::coordinator {

// Copies that are made for a client and removed once it has them; others are a dead coordinator's.
inline constexpr const char* kLedgerCopyPrefix = ".ledger-copy-";

class StateFolder {
 public:
  // Makes the folder if it is missing.
  static Result<StateFolder> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }

  // Made on first use, kept afterwards.
  Result<transport::KeyPair> keys() const;
  // Durable with those that they replace, or not at all.
  Result<> replace_keys(const transport::KeyPair& keys, const ReplacedKeys& replaced) const;
  // Those of a rotation that is not over.
  std::optional<ReplacedKeys> replaced_keys() const;
  void forget_replaced_keys() const;
  Result<std::string> api_token() const;
  Result<std::string> join_token() const;

  Ports last_ports() const;  // zeros if there are none
  Result<> write_ports(const Ports& ports) const;

  // For clients and workers; written once everything listens.
  Result<> write_address(const std::string& url) const;
  struct Join {
    std::string endpoint;
    std::string server_key;
    std::string join_token;
  };
  Result<> write_join(const Join& join) const;

 private:
  StateFolder(std::filesystem::path path, FileDescriptor lock)
      : path_(std::move(path)), lock_(std::move(lock)) {}

  Result<std::string> secret(const std::string& name) const;

  std::filesystem::path path_;
  FileDescriptor lock_;
};

}  // namespace tutti::coordinator
