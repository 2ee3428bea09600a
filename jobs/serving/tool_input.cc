#include "jobs/serving/tool_input.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <thread>

#include "jobs/data/npy.h"
#include "kernels/tensor/thread_pool.h"

namespace tutti::serving {
namespace {

template <class Number>
std::string list_of(const std::vector<Number>& numbers) {
  std::string out = "[";
  const char* separator = "";
  for (const Number number : numbers) {
    out += separator;
    fmt::format_to(std::back_inserter(out), "{}", number);  // the shortest that reads back
    separator = ", ";
  }
  return out + "]";
}

}  // namespace

Result<std::vector<std::uint32_t>> read_tokens(const std::string& path) {
  const Result<data::TokenFile> file = data::TokenFile::open(path);
  if (!file) return file.error();
  if (file->size() == 0) return Error{ErrorCode::invalid_argument, path + " holds no tokens"};
  std::vector<std::uint32_t> tokens(file->size());
  file->copy(0, tokens);
  return tokens;
}

int tool_threads(std::uint32_t wanted) {
  const unsigned threads = wanted == 0 ? std::thread::hardware_concurrency() : wanted;
  return static_cast<int>(
      std::clamp<unsigned>(threads, 1, static_cast<unsigned>(kernels::ThreadPool::kThreadsMax)));
}

std::string json_list(const std::vector<std::uint32_t>& numbers) { return list_of(numbers); }
std::string json_list(const std::vector<float>& numbers) { return list_of(numbers); }

}  // namespace tutti::serving
