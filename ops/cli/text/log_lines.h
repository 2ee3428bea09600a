// Output of several ranks on one screen: whole lines, each named by its rank.
//
// Chunks arrive cut anywhere; with a prefix a line is held until its end has come, or until rest().
#pragma once

#include <boost/json/value.hpp>

#include <cstdint>
#include <map>
#include <string>

namespace tutti::cli {

enum class LogPrefix { none, rank };

class LogLines {
 public:
  explicit LogLines(LogPrefix prefix) : prefix_(prefix) {}

  // What can be shown after this chunk {"rank", "text", ...}.
  std::string add(const boost::json::value& chunk);

  // Lines without an end, once nothing follows.
  std::string rest();

 private:
  LogPrefix prefix_;
  std::map<std::int64_t, std::string> open_;  // by process: its line so far, prefix included
};

}  // namespace tutti::cli
