// What a route of the HTTP API gets and gives; the server (http_server.h) does the rest.
//
// A handler is a coroutine on its connection's strand. It asks actors by ask (ask.h), never waits
// for long without looking at its deadline, and gives one Answer; an answer that streams writes its
// body piece by piece.
//
// Heavy (Asio's coroutines): include from .cc files of api and gateway only.
#pragma once

#include <boost/asio/awaitable.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/access/access_records.h"
#include "protocol/base/ids.h"
#include "protocol/base/result.h"

namespace tutti::api {

using coordinator::Role;

struct Call {
  std::string method;
  std::string path;
  std::map<std::string, std::string> query;
  std::string accept;
  std::string body;
  std::string user;            // of the token
  Role role = Role::anyone;    // of the token
  std::uint64_t token = 0;     // its number
  std::string from;            // the client's address
  std::string last_event;      // Last-Event-ID, as a reader of server-sent events resumes with it
  JobId job;                   // the path's ID, if its route has one
  std::string name;            // the path's NAME, if its route has one
  std::function<bool()> gone;  // whether the client has ended the connection; on its strand

  // A number of the query, or `otherwise`. Errors: invalid_argument.
  Result<std::uint64_t> number(const std::string& key, std::uint64_t otherwise) const;
  // Whose change this is, for the audit.
  coordinator::Caller caller(std::string action, std::string target, std::string detail) const;
};

// The body of a streamed answer. write returns false once the client is gone; then there is nothing
// more to do.
class BodyStream {
 public:
  virtual ~BodyStream() = default;
  virtual boost::asio::awaitable<bool> write(std::string part) = 0;
};

struct Answer {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::string error = {};  // the message of an error, which `body` says too
  std::map<std::string, std::string> headers = {};  // besides those that each answer has
  std::function<boost::asio::awaitable<void>(BodyStream&)> stream;  // instead of body
};

using Handler = std::function<boost::asio::awaitable<Answer>(const Call&)>;

struct Route {
  std::string method;
  std::string path;  // exact, or with one segment ID, which is a number, or NAME, which is a text
  Role role = Role::viewer;
  Handler handler;
};

Answer json_answer(std::string body);
Answer error_answer(const Error& error);
unsigned status_of(ErrorCode code);

}  // namespace tutti::api
