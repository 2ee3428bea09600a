// The coordinator's HTTP API as the verbs use it: JSON in, JSON or an Error out, and a cluster that
// may be restarting.
//
// The cluster is found anew for each request: by $TUTTI_URL and $TUTTI_TOKEN, else by the files
// `address` and `token` in the state folder. A coordinator that cannot be reached is tried again
// for `patience`, since its supervisor restarts it.
//
// Errors: those of the API, by their code; unavailable (nobody answers), corrupt (the answer is not
// the API's).
#pragma once

#include <boost/json/value.hpp>

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "protocol/base/result.h"

namespace tutti::cli {

struct HttpRequest {
  std::string method = "GET";
  std::string target;  // path and query
  std::string body;
  std::chrono::milliseconds timeout{10'000};  // for connecting and between bytes
};

struct HttpReply {
  unsigned status = 0;
  std::string body;
};

struct ClusterAddress {
  std::string url;
  std::string token;
};

// How bytes get there; a fake in tests.
class Http {
 public:
  virtual ~Http() = default;
  virtual Result<HttpReply> send(const ClusterAddress& to, const HttpRequest& request) = 0;
  // The body of a 200 in pieces as they come; another status comes as the reply, whole.
  virtual Result<HttpReply> stream(const ClusterAddress& to, const HttpRequest& request,
                                   const std::function<void(std::string_view)>& on_bytes) = 0;
};

// $TUTTI_STATE, else the XDG state folder.
std::filesystem::path default_state_folder();

// Errors: unavailable, one line that says how to start or name a cluster.
Result<ClusterAddress> find_cluster();

class Api {
 public:
  explicit Api(Http& http, std::chrono::milliseconds patience = std::chrono::seconds(5))
      : http_(http), patience_(patience) {}

  // How long to go on when nobody answers, once something has been heard: a job's end is waited for
  // over restarts.
  void set_patience(std::chrono::milliseconds patience) { patience_ = patience; }

  Result<boost::json::value> get(std::string target);
  // Of a target that is not JSON.
  Result<std::string> get_text(std::string target);
  // For a GET that the coordinator may hold back for as long.
  Result<boost::json::value> get_within(std::string target, std::chrono::milliseconds wait);
  // Not tried again after it may have arrived unless `repeatable`.
  enum class Repeat { never, allowed };
  Result<boost::json::value> post(std::string target, const boost::json::value& body,
                                  Repeat repeat);
  Result<> post_stream(std::string target, const boost::json::value& body,
                       const std::function<void(std::string_view)>& on_bytes);

 private:
  Result<boost::json::value> send(const HttpRequest& request, Repeat repeat);

  Http& http_;
  std::chrono::milliseconds patience_;
};

// The answer's JSON, or its error.
Result<boost::json::value> read_reply(const HttpReply& reply);

}  // namespace tutti::cli
