#include "coordinator/replaced_keys.h"

#include <sys/stat.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <exception>
#include <string>

#include "protocol/base/file.h"
#include "protocol/base/log.h"

namespace tutti::coordinator {

namespace json = boost::json;

namespace {

constexpr std::size_t kFileBytesMax = 4096;
constexpr unsigned kSecretMode = 0600;

ReplacedKeys parse(const std::string& text) {
  const json::value value = json::parse(text);
  ReplacedKeys out;
  out.keys.public_key = value.at("public_key").as_string().c_str();
  out.keys.secret_key = value.at("secret_key").as_string().c_str();
  out.control_port = value.at("control_port").to_number<std::uint16_t>();
  out.until.unix_ms = value.at("until_unix_ms").to_number<std::int64_t>();
  out.overlap = std::chrono::milliseconds(value.at("overlap_ms").to_number<std::int64_t>());
  return out;
}

}  // namespace

std::optional<ReplacedKeys> read_replaced_keys(const std::filesystem::path& file) {
  const Result<std::string> text = read_file(file, kFileBytesMax);
  if (!text && text.error().code == ErrorCode::not_found) return std::nullopt;
  struct stat status {};
  const bool is_private = ::stat(file.c_str(), &status) == 0 && (status.st_mode & 077) == 0;
  try {
    if (text && is_private) return parse(*text);
  } catch (const std::exception&) {
    // Said below.
  }
  TUTTI_LOG_WARNING("coordinator", "{} holds no keys that only we can read; it is not used",
                    file.string());
  return std::nullopt;
}

Result<> write_replaced_keys(const std::filesystem::path& file, const ReplacedKeys& replaced) {
  const json::object object{{"public_key", replaced.keys.public_key},
                            {"secret_key", replaced.keys.secret_key},
                            {"control_port", replaced.control_port},
                            {"until_unix_ms", replaced.until.unix_ms},
                            {"overlap_ms", to_ms(replaced.overlap)}};
  return write_file_atomically(file, json::serialize(object) + "\n", kSecretMode);
}

}  // namespace tutti::coordinator
