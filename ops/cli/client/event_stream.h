// Server-sent events out of bytes that arrive cut anywhere: the `data` of each, its lines joined.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tutti::cli {

class EventStream {
 public:
  // The events that are whole now.
  std::vector<std::string> add(std::string_view bytes);

 private:
  std::string line_;
  std::string data_;
  bool has_data_ = false;
};

}  // namespace tutti::cli
