#include "jobs/checkpoint/manifest.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>
#include <xxhash.h>

#include <boost/json.hpp>
#include <cerrno>
#include <memory>

#include "protocol/base/file.h"

namespace tutti::checkpoint {

namespace json = boost::json;

namespace {

constexpr std::size_t kReadBytes = std::size_t{1} << 20;

std::string to_hex(const XXH128_hash_t& hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

json::object object_of(const StateEntry& state) {
  json::array states;
  for (const std::string& name : state.states) states.emplace_back(name);
  json::object object{{"step", state.step},
                      {"generation", state.generation},
                      {"optimizer", state.optimizer},
                      {"states", std::move(states)},
                      {"weights", state.weights},
                      {"profile", state.profile},
                      {"spec", state.spec}};
  // Absent where there are none: manifests of before have no such key, and keep their hash.
  if (!state.choices.empty()) object["choices"] = state.choices;
  if (const auto& scale = state.loss_scale) {
    object["loss_scale"] = json::object{{"value", scale->value},
                                        {"good_steps", scale->good_steps},
                                        {"skipped_steps", scale->skipped_steps}};
  }
  return object;
}

StateEntry state_of(const json::object& object) {
  StateEntry state;
  state.step = object.at("step").to_number<std::uint64_t>();
  state.generation = object.at("generation").to_number<std::uint64_t>();
  state.optimizer = object.at("optimizer").as_string();
  for (const json::value& name : object.at("states").as_array()) {
    state.states.emplace_back(name.as_string());
  }
  state.weights = object.at("weights").as_string();
  state.profile = object.at("profile").as_string();
  state.spec = object.at("spec").as_string();
  if (const json::value* choices = object.if_contains("choices")) {
    state.choices = choices->as_string();
  }
  if (const json::value* scale = object.if_contains("loss_scale")) {
    state.loss_scale = {scale->at("value").to_number<float>(),
                        scale->at("good_steps").to_number<std::uint64_t>(),
                        scale->at("skipped_steps").to_number<std::uint64_t>()};
  }
  return state;
}

// A name that stays inside the folder.
bool is_plain(std::string_view name) {
  return !name.empty() && name.front() != '.' && name.find('/') == std::string_view::npos;
}

// Boost.JSON reports a missing key or another type by exceptions; they end here.
template <class Read>
auto read_json(std::string_view text, Read read) -> Result<decltype(read(json::object{}))> {
  try {
    return read(json::parse(json::string_view(text.data(), text.size())).as_object());
  } catch (const std::exception& problem) {
    return Error{ErrorCode::corrupt, problem.what()};
  }
}

}  // namespace

std::string to_json(const StateEntry& state) { return json::serialize(object_of(state)) + "\n"; }

Result<StateEntry> parse_state(std::string_view text) { return read_json(text, state_of); }

std::string to_json(const Manifest& manifest) {
  json::object inner = object_of(manifest.state);
  json::array files;
  for (const FileEntry& file : manifest.files) {
    files.push_back(json::object{{"name", file.name}, {"bytes", file.bytes}, {"hash", file.hash}});
  }
  inner["files"] = std::move(files);
  const std::string hash = hash_text(json::serialize(inner));
  return json::serialize(json::object{{"manifest", std::move(inner)}, {"hash", hash}});
}

Result<Manifest> parse_manifest(std::string_view text) {
  std::string stated;
  std::string actual;
  auto manifest = read_json(text, [&](const json::object& outer) {
    const json::object& inner = outer.at("manifest").as_object();
    stated = outer.at("hash").as_string();
    actual = hash_text(json::serialize(inner));
    Manifest read{state_of(inner), {}};
    for (const json::value& value : inner.at("files").as_array()) {
      const json::object& file = value.as_object();
      read.files.push_back({std::string(file.at("name").as_string()),
                            file.at("bytes").to_number<std::uint64_t>(),
                            std::string(file.at("hash").as_string())});
    }
    return read;
  });
  if (!manifest) return manifest;
  // Byte for byte as written, so that no byte can be changed unseen.
  if (stated != actual || to_json(*manifest) != text) {
    return Error{ErrorCode::corrupt, "its own hash does not check"};
  }
  for (const FileEntry& file : manifest->files) {
    if (!is_plain(file.name)) return Error{ErrorCode::corrupt, "a file name leaves the folder"};
  }
  return manifest;
}

std::string hash_text(std::string_view bytes) {
  return to_hex(XXH3_128bits(bytes.data(), bytes.size()));
}

Result<FileEntry> hash_file(const std::filesystem::path& folder, const std::string& name) {
  const std::filesystem::path path = folder / name;
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno_error("cannot open " + path.string(), errno);
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                       XXH3_freeState);
  TUTTI_ASSERT(state != nullptr);
  XXH3_128bits_reset(state.get());
  const auto buffer = std::make_unique_for_overwrite<char[]>(kReadBytes);
  FileEntry entry{name, 0, {}};
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer.get(), kReadBytes);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_error("cannot read " + path.string(), errno);
    if (count == 0) break;
    XXH3_128bits_update(state.get(), buffer.get(), static_cast<std::size_t>(count));
    entry.bytes += static_cast<std::uint64_t>(count);
  }
  entry.hash = to_hex(XXH3_128bits_digest(state.get()));
  return entry;
}

}  // namespace tutti::checkpoint
