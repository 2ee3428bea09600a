#include "ops/cli/rank_tools.h"

#include <stdlib.h>
#include <unistd.h>

#include <boost/json/parse.hpp>

#include <cerrno>
#include <exception>
#include <filesystem>
#include <system_error>

#include "protocol/base/file.h"
#include "protocol/spec/parse.h"
#include "worker/launcher/answer.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

// It reads a model's configuration, from a network file system perhaps.
constexpr Duration kAnswerWithin = std::chrono::seconds(20);

// Removed with its scope.
class TemporaryFile {
 public:
  static Result<TemporaryFile> with(const std::string& content) {
    std::error_code failed;
    const auto folder = std::filesystem::temp_directory_path(failed);
    std::string path = ((failed ? "/tmp" : folder) / "tutti-spec-XXXXXX").string();
    const FileDescriptor file(::mkstemp(path.data()));
    if (!file) return errno_error("cannot write " + path, errno);
    TemporaryFile made(path);
    if (auto written = write_file_atomically(path, content, 0600); !written) return written.error();
    return made;
  }
  TemporaryFile(TemporaryFile&& other) noexcept : path_(std::move(other.path_)) {
    other.path_.clear();
  }
  TemporaryFile& operator=(TemporaryFile&&) = delete;
  ~TemporaryFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFile(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// Its last line: what it refused, it said there.
std::string last_line(std::string_view text) {
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  const auto begin = text.rfind('\n');
  return std::string(begin == std::string_view::npos ? text : text.substr(begin + 1));
}

std::string value_of(const std::vector<std::string>& words, std::string_view option) {
  std::string value;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == option && i + 1 < words.size()) value = words[i + 1];
    if (word.starts_with(option) && word.size() > option.size() && word[option.size()] == '=') {
      value = word.substr(option.size() + 1);
    }
  }
  return value;
}

}  // namespace

std::vector<std::string> own_environment() {
  std::vector<std::string> out;
  for (char** entry = ::environ; entry != nullptr && *entry != nullptr; ++entry) {
    out.emplace_back(*entry);
  }
  return out;
}

std::string rank_binary(const std::vector<std::string>& words) {
  std::error_code failed;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", failed);
  const bool gpu = value_of(words, "--device").starts_with("gpu");
  return (self.parent_path() / (gpu ? "tutti-rank-cuda" : "tutti-rank")).string();
}

Result<DeviceMemory> parse_device_memory(std::string_view output) {
  const Error none{ErrorCode::corrupt, "tutti-rank says no memory: " + last_line(output)};
  try {
    const json::value line = json::parse(last_line(output));
    DeviceMemory memory;
    memory.bytes = line.at("bytes").to_number<std::uint64_t>();
    memory.least_bytes = line.at("least_bytes").to_number<std::uint64_t>();
    memory.ranks = line.at("ranks").to_number<std::uint32_t>();
    // A rank binary of an earlier version does not say it.
    if (const json::value* const tiles = line.as_object().if_contains("tiles")) {
      memory.tiles = tiles->as_object();
    }
    for (const json::value& part : line.at("parts").as_array()) {
      memory.parts.push_back(
          {std::string(part.at("name").as_string()), part.at("bytes").to_number<std::uint64_t>()});
    }
    return memory;
  } catch (const std::exception&) {
    return none;
  }
}

Result<DeviceMemory> ask_device_memory(const spec::JobSpec& spec) {
  const auto file = TemporaryFile::with(spec::to_yaml(spec));
  if (!file) return file.error();
  const auto answer =
      worker::answer_of({.command = {rank_binary({}), "memory", file->path(), "-o", "json"},
                         .environment = own_environment(),
                         .folder = {},
                         .linked = false},
                        kAnswerWithin);
  if (!answer && answer.error().code == ErrorCode::deadline_exceeded) {
    return Error{ErrorCode::deadline_exceeded, "the model was not read in 20 s"};
  }
  if (!answer) return answer.error();
  if (answer->status.signal != 0 || answer->status.code != 0)
    return Error{ErrorCode::unavailable, last_line(answer->text)};
  return parse_device_memory(answer->text);
}

}  // namespace tutti::cli
