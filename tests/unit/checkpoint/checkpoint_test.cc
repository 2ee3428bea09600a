#include <sys/resource.h>
#include <catch2/catch.hpp>

#include <csignal>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include "jobs/checkpoint/checkpoint_reader.h"
#include "jobs/checkpoint/checkpoint_writer.h"
#include "jobs/models/safetensors.h"
#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_decoder.h"

namespace tutti::checkpoint {
namespace {

namespace fs = std::filesystem;

models::Decoder tiny_decoder(std::uint32_t vocabulary_multiple = 1) {
  models::DecoderDescription description = test::tiny_decoder();
  description.layers = 1;
  description.vocabulary = 10;
  description.vocabulary_multiple = vocabulary_multiple;
  auto decoder = models::Decoder::create(description);
  INFO((decoder ? std::string() : decoder.error().message));
  REQUIRE(decoder.ok());
  return *decoder;
}

// A state whose every element is known, and what it is read back into.
class State {
 public:
  explicit State(float seed, std::uint32_t vocabulary_multiple = 1)
      : decoder_(tiny_decoder(vocabulary_multiple)) {
    for (auto* arena : {&weights_, &first_, &second_}) {
      arena->assign(decoder_.layout().elements(), 0.0F);
      for (const auto& parameter : decoder_.layout().parameters()) {
        for (std::uint64_t i = 0; i < parameter.elements; ++i) {
          (*arena)[parameter.offset + i] = (seed += 0.25F);
        }
      }
    }
  }

  CheckpointState at(std::uint64_t step) const {
    return {.decoder = decoder_,
            .weights = weights_,
            .optimizer = {{"exp_avg", first_}, {"exp_avg_sq", second_}},
            .entry = {.step = step,
                      .generation = 1,
                      .optimizer = "adamw",
                      .states = {"exp_avg", "exp_avg_sq"},
                      .weights = "1234",
                      .profile = "portable",
                      .spec = "kind: train\n"},
            .tokenizer = {}};
  }

  Result<LoadedState> load_from(const fs::path& folder) {
    const std::span<float> states[] = {first_, second_};
    return load(folder, {.decoder = decoder_,
                         .weights = weights_,
                         .optimizer = "adamw",
                         .states = {"exp_avg", "exp_avg_sq"},
                         .state_values = states});
  }

  // Of all parameters in name order, without what is between them.
  std::vector<float> values() const {
    std::vector<float> out;
    for (const auto* arena : {&weights_, &first_, &second_}) {
      for (const auto& parameter : decoder_.layout().parameters()) {
        const auto begin = arena->begin() + static_cast<std::ptrdiff_t>(parameter.offset);
        out.insert(out.end(), begin, begin + static_cast<std::ptrdiff_t>(parameter.elements));
      }
    }
    return out;
  }

  bool operator==(const State& other) const {
    return weights_ == other.weights_ && first_ == other.first_ && second_ == other.second_;
  }

 private:
  models::Decoder decoder_;
  std::vector<float> weights_;
  std::vector<float> first_;
  std::vector<float> second_;
};

// Both phases by `ranks` ranks.
fs::path save(const State& state, const fs::path& root, std::uint64_t step, std::uint32_t ranks = 1,
              std::uint32_t keep = 0) {
  CommitOrder order{.root = root, .step = step, .generation = 1, .keep = keep};
  for (std::uint32_t rank = 0; rank < ranks; ++rank) {
    auto files =
        write_part(state.at(step), {.root = root, .generation = 1, .rank = rank, .ranks = ranks});
    REQUIRE(files.ok());
    order.files.insert(order.files.end(), files->begin(), files->end());
  }
  auto folder = commit(order);
  REQUIRE(folder.ok());
  return *folder;
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder))
    names.insert(entry.path().filename().string());
  return names;
}

void overwrite(const fs::path& file, std::string_view content) {
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
}

TEST_CASE("checkpoint: what any number of ranks wrote, any loads again") {
  for (const std::uint32_t ranks : {1U, 3U, 14U}) {  // 14: more than there are tensors
    CAPTURE(ranks);
    const test::TemporaryFolder folder;
    const State state(1);
    const fs::path saved = save(state, folder.path() / "checkpoints", 7, ranks);
    CHECK(saved.filename() == "step-7");
    State read(100);
    auto loaded = read.load_from(saved);
    REQUIRE(loaded.ok());
    CHECK(read == state);
    CHECK(loaded->entry == state.at(7).entry);
    CHECK(models::SafetensorsReader::open_folder(saved)
              .ok());  // as Hugging Face tools find the tensors
    CHECK(fs::exists(saved / "model.safetensors.index.json") == (ranks > 1));
  }
}

TEST_CASE("checkpoint: padded rows of a head are in no file, and load with and without them") {
  const test::TemporaryFolder folder;
  const State padded(1, 16);
  const State plain(1);
  REQUIRE(padded.values() == plain.values());
  const fs::path of_padded = save(padded, folder.path() / "padded", 7);
  const fs::path of_plain = save(plain, folder.path() / "plain", 7);
  CHECK(names_in(of_padded) == names_in(of_plain));
  for (const std::string& name : names_in(of_padded)) {
    INFO(name);
    CHECK(*read_file(of_padded / name) == *read_file(of_plain / name));
  }
  const fs::path by_two = save(padded, folder.path() / "by-two", 7, 2);
  for (const std::uint32_t multiple : {1U, 16U, 64U}) {
    for (const fs::path& saved : {of_padded, by_two}) {
      State read(100, multiple);
      REQUIRE(read.load_from(saved).ok());
      CHECK(read.values() == plain.values());
    }
  }
}

TEST_CASE("checkpoint: parts are invisible until they are committed") {
  const test::TemporaryFolder folder;
  const State state(1);
  auto files = write_part(state.at(5), {.root = folder.path(), .generation = 2});
  REQUIRE(files.ok());
  CHECK(list_checkpoints(folder.path()).empty());
  CHECK_FALSE(newest_valid(folder.path()));
  CommitOrder order{.root = folder.path(), .step = 5, .generation = 2, .files = *files};
  REQUIRE(commit(order).ok());
  CHECK(newest_valid(folder.path())->step == 5);
  CHECK(commit(order).ok());  // the order repeats until it is acknowledged
  order.step = 6;
  CHECK(commit(order).error().code == ErrorCode::not_found);
}

TEST_CASE(
    "checkpoint: cut at any byte of any file it is invisible, and the one before it is used") {
  const test::TemporaryFolder folder;
  const State state(1);
  save(state, folder.path(), 4, 2);
  const fs::path newest = save(state, folder.path(), 8, 2);
  REQUIRE(newest_valid(folder.path())->step == 8);
  for (const std::string& name : names_in(newest)) {
    const std::string content = *read_file(newest / name);
    const std::size_t stride =
        name == "manifest.json" ? 1 : std::max<std::size_t>(1, content.size() / 16);
    for (std::size_t bytes = 0; bytes < content.size(); bytes += stride) {
      fs::resize_file(newest / name, bytes);
      const auto found = newest_valid(folder.path());
      const bool right = found && found->step == 4;
      if (!right) FAIL_CHECK(name << " cut to " << bytes << " bytes was not noticed");
      overwrite(newest / name, content);
    }
    fs::remove(newest / name);
    CHECK(newest_valid(folder.path())->step == 4);
    overwrite(newest / name, content);
  }
  CHECK(newest_valid(folder.path())->step == 8);
}

TEST_CASE("checkpoint: one altered byte anywhere is noticed and its file is named") {
  const test::TemporaryFolder folder;
  const State state(1);
  const fs::path saved = save(state, folder.path(), 8);
  for (const std::string& name : names_in(saved)) {
    const std::string content = *read_file(saved / name);
    const std::size_t stride =
        name == "manifest.json" ? 1 : std::max<std::size_t>(1, content.size() / 16);
    for (std::size_t at = 0; at < content.size(); at += stride) {
      std::string altered = content;
      altered[at] = static_cast<char>(altered[at] ^ 1);
      overwrite(saved / name, altered);
      const auto verified = verify(saved);
      if (verified) FAIL_CHECK(name << " altered at " << at << " was not noticed");
      if (!verified) CHECK_THAT(verified.error().message, Catch::Matchers::Contains(name));
    }
    overwrite(saved / name, content);
  }
  CHECK(verify(saved).ok());
}

TEST_CASE(
    "checkpoint: pruning keeps the newest, those in use, and nothing half-written of older "
    "generations") {
  const test::TemporaryFolder folder;
  const State state(1);
  for (const std::uint64_t step : {1, 2, 3, 4}) save(state, folder.path(), step);
  fs::create_directories(folder.path() / ".step-9.g0");
  auto files = write_part(state.at(5), {.root = folder.path(), .generation = 1});
  REQUIRE(files.ok());
  const auto newer = folder.path() / ".step-6.g1";
  fs::create_directories(newer);
  REQUIRE(commit({.root = folder.path(),
                  .step = 5,
                  .generation = 1,
                  .files = *files,
                  .keep = 2,
                  .in_use = {1}})
              .ok());
  CHECK(names_in(folder.path()) ==
        std::set<std::string>{".step-6.g1", "step-1", "step-4", "step-5"});
}

TEST_CASE("checkpoint: an order that comes late prunes nothing that is newer") {
  const test::TemporaryFolder folder;
  const State state(1);
  for (const std::uint64_t step : {1, 3, 4}) save(state, folder.path(), step);
  auto files = write_part(state.at(2), {.root = folder.path(), .generation = 1});
  REQUIRE(files.ok());
  // It was given when nobody knew of 3, which has been asked for and is in use since.
  REQUIRE(commit({.root = folder.path(),
                  .step = 2,
                  .generation = 1,
                  .files = *files,
                  .keep = 1,
                  .in_use = {}})
              .ok());
  CHECK(names_in(folder.path()) == std::set<std::string>{"step-2", "step-3", "step-4"});
}

TEST_CASE("checkpoint: of parts that nobody commits the newest stay, and can be committed") {
  const test::TemporaryFolder folder;
  const State state(1);
  save(state, folder.path(), 1);
  std::vector<FileEntry> files;
  for (std::uint64_t step = 2; step <= 40; ++step) {
    for (const std::uint32_t rank : {0U, 1U}) {
      auto part = write_part(state.at(step),
                             {.root = folder.path(), .generation = 1, .rank = rank, .ranks = 2});
      REQUIRE(part.ok());
      if (rank == 0) files.clear();
      files.insert(files.end(), part->begin(), part->end());
    }
  }
  CHECK(names_in(folder.path()).size() == 18);  // the committed one, 16, and the last
  fs::create_directory(folder.path() / ".retired.step-3.g1");  // by a rank that died over it
  CommitOrder order{.root = folder.path(), .step = 20, .generation = 1, .files = files};
  CHECK(commit(order).error().code == ErrorCode::not_found);
  order.step = 40;
  REQUIRE(commit(order).ok());
  CHECK(names_in(folder.path()) == std::set<std::string>{"step-1", "step-40"});
}

TEST_CASE("checkpoint: a committed step that was damaged is replaced by new parts") {
  const test::TemporaryFolder folder;
  const State state(1);
  const fs::path saved = save(state, folder.path(), 3);
  fs::resize_file(saved / "model.safetensors", 100);
  CHECK_FALSE(verify(saved).ok());
  CHECK(save(state, folder.path(), 3) == saved);
  CHECK(verify(saved).ok());
}

TEST_CASE("checkpoint: ranks that commit the same parts at the same time leave one checkpoint") {
  const test::TemporaryFolder folder;
  const State state(1);
  for (std::uint64_t step = 1; step <= 20; ++step) {
    auto files = write_part(state.at(step), {.root = folder.path(), .generation = 1});
    REQUIRE(files.ok());
    const CommitOrder order{.root = folder.path(), .step = step, .generation = 1, .files = *files};
    bool committed[3] = {};
    {
      std::vector<std::jthread> ranks;
      for (bool& done : committed) ranks.emplace_back([&] { done = commit(order).ok(); });
    }
    CHECK((committed[0] && committed[1] && committed[2]));
    const auto newest = newest_valid(folder.path());
    REQUIRE(newest);
    REQUIRE(newest->step == step);
  }
}

TEST_CASE("checkpoint: a full disk is an error value, and what the part wrote is taken back") {
  const test::TemporaryFolder folder;
  const State state(1);
  save(state, folder.path(), 1);
  // A limit on file sizes stands for the full disk: the write fails in its middle all the same.
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limited = before;
  limited.rlim_cur = 2'000;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limited) == 0);
  const auto files = write_part(state.at(2), {.root = folder.path(), .generation = 1});
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  REQUIRE_FALSE(files.ok());
  CHECK_THAT(files.error().message, Catch::Matchers::StartsWith("checkpoint of step 2: "));
  CHECK(names_in(folder.path() / ".step-2.g1").empty());
  CHECK(newest_valid(folder.path())->step == 1);
}

TEST_CASE("checkpoint: another optimizer's state or another model's tensors are refused") {
  const test::TemporaryFolder folder;
  const State state(1);
  const fs::path saved = save(state, folder.path(), 1);
  const models::Decoder decoder = tiny_decoder();
  std::vector<float> weights(decoder.layout().elements());
  const auto wrong = load(saved, {.decoder = decoder,
                                  .weights = weights,
                                  .optimizer = "muon",
                                  .states = {},
                                  .state_values = {}});
  CHECK(wrong.error().code == ErrorCode::invalid_argument);
}

TEST_CASE("manifest: names that leave the folder are refused even with a right hash") {
  Manifest manifest;
  manifest.files = {{"../secret", 1, "00"}};
  CHECK(parse_manifest(to_json(manifest)).error().code == ErrorCode::corrupt);
}

}  // namespace
}  // namespace tutti::checkpoint
