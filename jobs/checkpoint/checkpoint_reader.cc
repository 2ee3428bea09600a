#include "jobs/checkpoint/checkpoint_reader.h"

#include <algorithm>
#include <charconv>

#include "jobs/models/safetensors.h"
#include "protocol/base/file.h"

namespace tutti::checkpoint {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kManifestBytesMax = std::uint64_t{16} << 20;
constexpr std::string_view kStepPrefix = "step-";

std::optional<std::uint64_t> step_of(const std::string& name) {
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  std::uint64_t step = 0;
  const char* const first = name.data() + kStepPrefix.size();
  const char* const last = name.data() + name.size();
  const auto parsed = std::from_chars(first, last, step);
  if (parsed.ec != std::errc() || parsed.ptr != last) return std::nullopt;
  return step;
}

Error altered(const fs::path& folder, const std::string& file, std::string_view how) {
  return Error{ErrorCode::corrupt, (folder / file).string() + " " + std::string(how)};
}

Result<> read_states(const fs::path& folder, const Manifest& manifest, const StateTarget& target) {
  std::vector<models::SafetensorsReader> readers;
  for (const FileEntry& file : manifest.files) {
    if (!file.name.starts_with("optimizer")) continue;
    auto reader = models::SafetensorsReader::open(folder / file.name);
    if (!reader) return reader.error();
    readers.push_back(*std::move(reader));
  }
  const auto read_arena = [&](const std::string& arena, std::span<float> all,
                              models::PackedWords packed) -> Result<> {
    const models::StateLayout layout(target.decoder.layout(), packed);
    auto part = layout.parts.begin();
    for (const models::Parameter& parameter : target.decoder.layout().parameters()) {
      const std::span<float> values = all.subspan(part->offset, part->words);
      ++part;
      const std::string name = arena + "/" + parameter.name;
      const auto holder = std::find_if(readers.begin(), readers.end(), [&](const auto& reader) {
        return reader.find(name) != nullptr;
      });
      if (holder == readers.end()) return altered(folder, name, "is missing");
      auto read = packed == nullptr ? holder->read(name, parameter.shape, values)
                                    : holder->read_bytes(name, std::as_writable_bytes(values));
      if (!read) return read;
    }
    return {};
  };
  Result<> done;
  if (target.weights_beside) {
    done = read_arena(std::string(kWeightsBeside), target.weights, nullptr);
  }
  for (std::size_t i = 0; done && i < target.states.size(); ++i) {
    done = read_arena(target.states[i], target.state_values[i], target.packed);
  }
  return done;
}

}  // namespace

Result<Manifest> verify(const fs::path& folder, Depth depth) {
  auto text = read_file(folder / "manifest.json", kManifestBytesMax);
  if (!text) return text.error();
  auto manifest = parse_manifest(*text);
  if (!manifest) return Error(manifest.error()).with_context((folder / "manifest.json").string());
  for (const FileEntry& file : manifest->files) {
    std::error_code failed;
    const std::uint64_t bytes = fs::file_size(folder / file.name, failed);
    if (failed) return altered(folder, file.name, "is missing");
    if (bytes != file.bytes)
      return altered(folder, file.name, "has another size than its manifest says");
    if (depth == Depth::sizes) continue;
    auto hashed = hash_file(folder, file.name);
    if (!hashed) return hashed.error();
    if (*hashed != file)
      return altered(folder, file.name, "has another content than its manifest says");
  }
  return manifest;
}

std::vector<FoundCheckpoint> list_checkpoints(const fs::path& root) {
  std::vector<FoundCheckpoint> found;
  std::error_code failed;
  for (fs::directory_iterator entry(root, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    const auto step = step_of(entry->path().filename().string());
    if (step) found.push_back({entry->path(), *step});
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.step > b.step; });
  return found;
}

std::optional<FoundCheckpoint> newest_valid(const fs::path& root, std::uint64_t step_max) {
  for (const FoundCheckpoint& found : list_checkpoints(root)) {
    if (found.step > step_max) continue;
    auto manifest = verify(found.folder);
    if (manifest && manifest->state.step == found.step) return found;
  }
  return std::nullopt;
}

Result<LoadedState> load(const fs::path& folder, const StateTarget& target) {
  TUTTI_ASSERT(target.states.size() == target.state_values.size());
  auto manifest = verify(folder);
  if (!manifest) return manifest.error();
  if (manifest->state.optimizer != target.optimizer) {
    return Error{ErrorCode::invalid_argument, folder.string() + " holds the state of optimizer " +
                                                  manifest->state.optimizer + ", not of " +
                                                  target.optimizer};
  }
  Result<> loaded;
  if (!target.weights_beside) {
    loaded = models::load_weights(target.decoder, folder, target.weights);
  }
  if (loaded) loaded = read_states(folder, *manifest, target);
  if (!loaded) return loaded.error();
  std::uint64_t bytes = 0;
  for (const FileEntry& file : manifest->files) bytes += file.bytes;
  return LoadedState{manifest->state, bytes};
}

}  // namespace tutti::checkpoint
