// The real HTTP client and the API on it, for the length of one verb.
#pragma once

#include <memory>

#include "ops/cli/client/api.h"

namespace tutti::cli {

class Connection {
 public:
  Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  Api& api() { return api_; }

 private:
  std::unique_ptr<Http> http_;
  Api api_;
};

}  // namespace tutti::cli
