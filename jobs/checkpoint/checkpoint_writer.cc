#include "jobs/checkpoint/checkpoint_writer.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>
#include <optional>

#include "jobs/checkpoint/checkpoint_reader.h"
#include "jobs/models/safetensors.h"
#include "protocol/base/file.h"
#include "protocol/base/log.h"

namespace tutti::checkpoint {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kTokenizerBytesMax = std::uint64_t{256} << 20;
// Checkpoints written and not committed that are kept beside the one that is being written: more
// than a coordinator is ever behind with, unless it can commit nothing.
constexpr std::size_t kUncommittedMax = 16;
constexpr std::string_view kRetired = ".retired";

using Parameters = std::span<const models::Parameter>;

// Which parameters each file holds: contiguous, near equal in size, none empty.
std::vector<Parameters> split_parameters(const models::ParameterLayout& layout,
                                         std::uint32_t ranks) {
  const Parameters all = layout.parameters();
  const std::size_t files = std::min<std::size_t>(ranks, all.size());
  std::vector<Parameters> split;
  std::size_t first = 0;
  for (std::size_t file = 0; file < files; ++file) {
    const std::size_t last_possible = all.size() - (files - file - 1);
    const std::uint64_t border = (file + 1) * layout.elements() / files;
    std::size_t end = first + 1;
    while (end < last_possible && all[end].offset + all[end].elements / 2 < border) ++end;
    if (file + 1 == files) end = all.size();
    split.push_back(all.subspan(first, end - first));
    first = end;
  }
  return split;
}

std::string tensor_file_name(std::string_view kind, std::size_t file, std::size_t files) {
  if (files == 1) return fmt::format("{}.safetensors", kind);
  return fmt::format("{}-{:05}-of-{:05}.safetensors", kind, file + 1, files);
}

Error file_error(std::string_view what, const fs::path& path, const std::error_code& code) {
  return errno_error(fmt::format("cannot {} {}", what, path.string()), code.value());
}

struct PrivateFolder {
  std::uint64_t generation = 0;
  std::uint64_t step = 0;
  fs::path path = {};

  auto operator<=>(const PrivateFolder&) const = default;
};

// ".step-12.g3"; ".retired.step-12.g3", which somebody was removing when it died, is older than
// any.
std::optional<PrivateFolder> parse_private(std::string_view name) {
  constexpr std::string_view kPrefix = ".step-";
  if (name.starts_with(kRetired)) {
    auto retired = parse_private(name.substr(kRetired.size()));
    if (retired) retired->generation = 0;
    return retired;
  }
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const char* const last = name.data() + name.size();
  PrivateFolder folder;
  const auto step = std::from_chars(name.data() + kPrefix.size(), last, folder.step);
  if (step.ec != std::errc() || last - step.ptr < 3 || step.ptr[0] != '.' || step.ptr[1] != 'g') {
    return std::nullopt;
  }
  const auto generation = std::from_chars(step.ptr + 2, last, folder.generation);
  return generation.ec == std::errc() && generation.ptr == last ? std::optional(folder)
                                                                : std::nullopt;
}

void remove_folder(const fs::path& folder) {
  std::error_code failed;
  fs::remove_all(folder, failed);
  if (failed) {
    TUTTI_LOG_WARNING("checkpoint", "cannot remove {}: {}", folder.string(), failed.message());
  }
}

// Those of the job, the oldest first.
std::vector<PrivateFolder> private_folders(const fs::path& root) {
  std::vector<PrivateFolder> found;
  std::error_code failed;
  for (fs::directory_iterator entry(root, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    auto folder = parse_private(entry->path().filename().string());
    if (!folder) continue;
    folder->path = entry->path();
    found.push_back(*std::move(folder));
  }
  std::sort(found.begin(), found.end());
  return found;
}

// While nobody commits, as where the coordinator's disk is full, a disk does not fill with parts:
// all but the newest before the given one go. A commit may be on its way to any of them: it and
// this rename a folder, so that one of the two finds it gone, and what is committed is whole.
void retire_uncommitted(const fs::path& root, const PrivateFolder& current) {
  std::vector<PrivateFolder> older = private_folders(root);
  std::erase_if(older, [&](const PrivateFolder& each) {
    return std::pair(each.generation, each.step) >= std::pair(current.generation, current.step);
  });
  for (std::size_t i = 0; i + kUncommittedMax < older.size(); ++i) {
    const fs::path retired = root / (std::string(kRetired) + older[i].path.filename().string());
    std::error_code failed;
    fs::rename(older[i].path, retired, failed);
    if (!failed) remove_folder(retired);
  }
}

// Writes one rank's files and knows them, so that a failure can take them back.
class PartWriter {
 public:
  PartWriter(const CheckpointState& state, const PartPlace& place)
      : state_(state),
        place_(place),
        folder_(place.root / private_folder_name(state.entry.step, place.generation)),
        split_(split_parameters(state.decoder.layout(), place.ranks)) {}

  Result<std::vector<FileEntry>> write() {
    std::error_code failed;
    fs::create_directories(folder_, failed);
    if (failed) return file_error("make", folder_, failed);
    if (place_.rank == 0) {
      retire_uncommitted(place_.root, {place_.generation, state_.entry.step});
    }
    auto written = write_files();
    if (written) written = sync_folder(folder_);
    if (written) written = hash_files();
    if (!written) {
      for (const std::string& name : names_) fs::remove(folder_ / name, failed);
      return Error(written.error())
          .with_context(fmt::format("checkpoint of step {}", state_.entry.step));
    }
    return std::move(entries_);
  }

 private:
  Result<> write_files() {
    if (place_.rank < split_.size()) {
      auto written = write_weights();
      if (written) written = write_optimizer();
      if (!written) return written;
    }
    return place_.rank == 0 ? write_descriptions() : Result<>{};
  }

  Result<> write_weights() {
    const Parameters own = split_[place_.rank];
    std::vector<models::TensorDeclaration> tensors;
    for (const auto& parameter : own) {
      tensors.push_back({parameter.name, models::TensorType::f32, parameter.shape});
    }
    const models::StateLayout layout(state_.decoder.layout(), nullptr);
    const auto pieces = [&](auto append) { return append(state_.weights, layout); };
    return write_tensors(tensor_file_name("model", place_.rank, split_.size()), tensors, pieces);
  }

  Result<> write_optimizer() {
    const Parameters own = split_[place_.rank];
    std::vector<models::TensorDeclaration> tensors;
    for (const NamedArena& arena : state_.optimizer) {
      for (const auto& parameter : own) {
        const std::string name = arena.name + "/" + parameter.name;
        if (arena.packed == nullptr) {
          tensors.push_back({name, models::TensorType::f32, parameter.shape});
        } else {
          const std::uint64_t bytes = arena.packed(parameter.elements) * sizeof(float);
          tensors.push_back({name, models::TensorType::u8, {bytes}});
        }
      }
    }
    const auto pieces = [&](auto append) {
      Result<> done;
      for (const NamedArena& arena : state_.optimizer) {
        if (!done) break;
        done = append(arena.values, models::StateLayout(state_.decoder.layout(), arena.packed));
      }
      return done;
    };
    return write_tensors(tensor_file_name("optimizer", place_.rank, split_.size()), tensors,
                         pieces);
  }

  template <class Pieces>
  Result<> write_tensors(const std::string& name,
                         std::span<const models::TensorDeclaration> tensors, const Pieces& pieces) {
    claim(name);
    auto writer = models::SafetensorsWriter::create(folder_ / name, tensors, {{"format", "pt"}});
    if (!writer) return writer.error();
    const Parameters own = split_[place_.rank];
    const auto first =
        static_cast<std::size_t>(own.data() - state_.decoder.layout().parameters().data());
    Result<> appended =
        pieces([&](std::span<const float> arena, const models::StateLayout& layout) {
          Result<> done;
          for (std::size_t i = first; done && i < first + own.size(); ++i) {
            done = writer->append(arena.subspan(layout.parts[i].offset, layout.parts[i].words));
          }
          return done;
        });
    if (!appended) return appended;
    auto finished = writer->finish();
    if (!finished) return finished.error();
    return {};
  }

  Result<> write_descriptions() {
    auto written = write_text("config.json", models::to_config_json(state_.decoder.description()));
    if (written) written = write_text("training.json", to_json(state_.entry));
    if (written && split_.size() > 1) written = write_index();
    if (!written || state_.tokenizer.empty()) return written;
    auto tokenizer = read_file(state_.tokenizer, kTokenizerBytesMax);
    if (!tokenizer) return tokenizer.error();
    return write_text("tokenizer.json", *tokenizer);
  }

  Result<> write_index() {
    std::map<std::string, std::string> file_of_tensor;
    std::uint64_t bytes = 0;
    for (std::size_t file = 0; file < split_.size(); ++file) {
      for (const auto& parameter : split_[file]) {
        file_of_tensor[parameter.name] = tensor_file_name("model", file, split_.size());
        bytes += parameter.elements * sizeof(float);
      }
    }
    return write_text("model.safetensors.index.json", models::to_index_json(file_of_tensor, bytes));
  }

  Result<> write_text(const std::string& name, std::string_view content) {
    claim(name);
    return write_file_atomically(folder_ / name, content);
  }

  // A file of an earlier try of this generation makes room.
  void claim(const std::string& name) {
    std::error_code ignored;
    fs::remove(folder_ / name, ignored);
    names_.push_back(name);
  }

  Result<> hash_files() {
    for (const std::string& name : names_) {
      auto entry = hash_file(folder_, name);
      if (!entry) return entry.error();
      entries_.push_back(*std::move(entry));
    }
    return {};
  }

  const CheckpointState& state_;
  const PartPlace& place_;
  const fs::path folder_;
  const std::vector<Parameters> split_;
  std::vector<std::string> names_;
  std::vector<FileEntry> entries_;
};

// Old checkpoints beyond `keep`, and parts that can never be committed any more. Failing costs
// disk, nothing else. An order that is late, with a slow rank, says nothing of newer ones: what
// they may not lose was not known when it was given.
void prune(const CommitOrder& order) {
  std::uint32_t kept = 0;
  for (const FoundCheckpoint& found : list_checkpoints(order.root)) {
    if (found.step > order.step) continue;
    const bool used =
        std::find(order.in_use.begin(), order.in_use.end(), found.step) != order.in_use.end();
    if (order.keep == 0 || kept++ < order.keep || used || found.step == order.step) continue;
    remove_folder(found.folder);
  }
  for (const PrivateFolder& folder : private_folders(order.root)) {
    const bool over = folder.generation < order.generation ||
                      (folder.generation == order.generation && folder.step <= order.step);
    if (over) remove_folder(folder.path);
  }
}

Result<> write_manifest(const CommitOrder& order, const fs::path& folder) {
  auto text = read_file(folder / "training.json");
  if (!text) return text.error();
  auto state = parse_state(*text);
  if (!state) return Error(state.error()).with_context((folder / "training.json").string());
  Manifest manifest{*std::move(state), order.files};
  std::sort(manifest.files.begin(), manifest.files.end(),
            [](const FileEntry& a, const FileEntry& b) { return a.name < b.name; });
  for (const FileEntry& file : manifest.files) {
    std::error_code failed;
    if (fs::file_size(folder / file.name, failed) != file.bytes || failed) {
      return Error{ErrorCode::corrupt,
                   (folder / file.name).string() + " is not the file that was reported"};
    }
  }
  return write_file_atomically(folder / "manifest.json", to_json(manifest));
}

// A damaged folder of this step makes room, but only for parts that are there: where another rank
// was first with them, what stands in their place is the checkpoint.
Result<> put_in_place(const fs::path& folder, const fs::path& target) {
  std::error_code failed;
  fs::rename(folder, target, failed);
  if (failed == std::errc::directory_not_empty || failed == std::errc::file_exists ||
      failed == std::errc::not_a_directory) {
    remove_folder(target);
    fs::rename(folder, target, failed);
  }
  if (failed) return file_error("rename", folder, failed);
  return {};
}

}  // namespace

std::string step_folder_name(std::uint64_t step) { return fmt::format("step-{}", step); }

std::string private_folder_name(std::uint64_t step, std::uint64_t generation) {
  return fmt::format(".step-{}.g{}", step, generation);
}

Result<std::vector<FileEntry>> write_part(const CheckpointState& state, const PartPlace& place) {
  return PartWriter(state, place).write();
}

Result<fs::path> commit(const CommitOrder& order) {
  const fs::path target = order.root / step_folder_name(order.step);
  const fs::path folder = order.root / private_folder_name(order.step, order.generation);
  std::error_code failed;
  const bool parts_wait = fs::exists(folder, failed);
  // With parts at hand, an old folder of this step is trusted only after it was read; without,
  // nothing better is there.
  if (verify(target, parts_wait ? Depth::hashes : Depth::sizes)) {
    prune(order);
    return target;
  }
  if (!parts_wait) {
    return Error{ErrorCode::not_found,
                 folder.string() + ": the parts of this checkpoint are not there"};
  }
  auto written = write_manifest(order, folder);
  if (written) written = put_in_place(folder, target);
  // A rank that is slow is not waited for: both may be at it, and one of them is first.
  if (!written && !verify(target)) return written.error();
  auto synced = sync_folder(order.root);
  if (!synced) return synced.error();
  prune(order);
  return target;
}

}  // namespace tutti::checkpoint
