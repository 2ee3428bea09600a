#include "jobs/models/image_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>

#include "jobs/models/inference_pass.h"
#include "jobs/models/serving_weights.h"
#include "protocol/base/file.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/models/small_model.h"

namespace tutti::models {
namespace {

using kernels::Hash128;
using test::Samples;
using test::TemporaryFolder;
using Bytes = std::vector<std::byte>;

kernels::ThreadPool& pool() {
  static kernels::ThreadPool two(2);
  return two;
}
kernels::OpContext context() { return {.pool = &pool()}; }

Bytes bytes_of(std::size_t size, int seed) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>((i * 31 + static_cast<std::size_t>(seed) * 7) % 251);
  }
  return bytes;
}

bool store(const ImageCache& cache, const Hash128& key, const std::vector<Bytes>& pieces) {
  const std::vector<std::span<const std::byte>> views(pieces.begin(), pieces.end());
  return cache.store(context(), key, views);
}

bool holds(const ImageCache& cache, const Hash128& key, const std::vector<Bytes>& pieces) {
  const auto found = cache.find(context(), key);
  return found && std::ranges::equal(found->pieces(), pieces, [](const auto& a, const Bytes& b) {
           return std::ranges::equal(a, b);
         });
}

std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files.push_back(entry.path());
  }
  return files;
}

// One byte of the file is another.
void damage(const std::filesystem::path& path, std::int64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(offset);
  const int byte = file.get();
  file.seekp(offset);
  file.put(static_cast<char>(byte ^ 0x10));
  REQUIRE(file.good());
}

constexpr Hash128 kKey{1, 2};
const std::vector<Bytes>& some_pieces() {
  static const std::vector<Bytes> pieces = {bytes_of(400, 1), bytes_of(0, 2), bytes_of(300000, 3)};
  return pieces;
}

}  // namespace

TEST_CASE("image cache: bytes have one hash wherever they lie, and another one each") {
  for (const std::size_t size : {0U, 1U, 4U, 7U, 400U, 100003U}) {
    INFO(size);
    const Bytes bytes = bytes_of(size, 1);
    const Hash128 hash = hash_bytes(context(), bytes);
    for (const std::size_t offset : {1U, 2U, 4U}) {
      Bytes moved(size + offset);
      std::ranges::copy(bytes, moved.begin() + static_cast<std::ptrdiff_t>(offset));
      CHECK(hash_bytes(context(), std::span(moved).subspan(offset)) == hash);
      if (size == 0) continue;
      moved.back() ^= std::byte{1};
      CHECK_FALSE(hash_bytes(context(), std::span(moved).subspan(offset)) == hash);
    }
  }
}

TEST_CASE("image cache: what was stored is found by its key, and no other") {
  TemporaryFolder folder;
  const ImageCache cache({.folder = folder.path() / "images"});
  CHECK_FALSE(cache.find(context(), kKey));
  REQUIRE(store(cache, kKey, some_pieces()));
  CHECK(holds(cache, kKey, some_pieces()));
  CHECK_FALSE(cache.find(context(), {1, 3}));
  CHECK(files_in(folder.path() / "images").size() == 1);
  const auto found = cache.find(context(), kKey);
  REQUIRE(found);
  for (const auto& piece : found->pieces()) {
    CHECK(reinterpret_cast<std::uintptr_t>(piece.data()) % 4096 == 0);
  }
}

TEST_CASE(
    "image cache: a damaged, shortened, renamed or foreign file is passed over and replaced") {
  TemporaryFolder folder;
  const ImageCache cache({.folder = folder.path()});
  REQUIRE(store(cache, kKey, some_pieces()));
  const auto path = files_in(folder.path()).front();
  const auto size = std::filesystem::file_size(path);
  const auto is_replaced = [&] {
    CHECK_FALSE(cache.find(context(), kKey));
    REQUIRE(store(cache, kKey, some_pieces()));
    return holds(cache, kKey, some_pieces()) && files_in(folder.path()).size() == 1;
  };
  // Magic, version, number of pieces, key, hash, table, the first and the last piece.
  for (const std::int64_t offset : {0, 8, 12, 24, 40, 64, 4096 + 9, 8192 + 299999}) {
    INFO(offset);
    damage(path, offset);
    CHECK(is_replaced());
  }
  for (const std::uintmax_t length : {std::uintmax_t{0}, std::uintmax_t{40}, size - 4096}) {
    INFO(length);
    std::filesystem::resize_file(path, length);
    CHECK(is_replaced());
  }
  std::ofstream(path) << "something else";
  CHECK(is_replaced());
  const Hash128 other{9, 9};
  REQUIRE(store(cache, other, {bytes_of(64, 4)}));
  std::filesystem::rename(folder.path() / (kernels::to_string(other) + ".images"), path);
  CHECK(is_replaced());
}

TEST_CASE("image cache: the file longest unused makes room, and what was mapped stays") {
  using namespace std::chrono_literals;
  TemporaryFolder folder;
  const std::vector<Bytes> large = {bytes_of(40000, 1)};
  const ImageCache cache({.folder = folder.path(), .bytes_max = 100000});
  REQUIRE(store(cache, {1, 0}, large));
  REQUIRE(store(cache, {2, 0}, large));
  const auto now = std::filesystem::file_time_type::clock::now();
  const auto file = [&](std::uint64_t key) {
    return folder.path() / (kernels::to_string(Hash128{key, 0}) + ".images");
  };
  std::filesystem::last_write_time(file(1), now - 2h);
  std::filesystem::last_write_time(file(2), now - 1h);
  const auto mapped = cache.find(context(), {2, 0});
  REQUIRE(holds(cache, {1, 0}, large));  // used last
  std::filesystem::last_write_time(file(2), now - 1h);
  REQUIRE(store(cache, {3, 0}, large));
  CHECK(std::filesystem::exists(file(1)));
  CHECK_FALSE(std::filesystem::exists(file(2)));
  CHECK(holds(cache, {3, 0}, large));
  REQUIRE(mapped);
  CHECK(std::ranges::equal(mapped->pieces()[0], large[0]));

  // What cannot fit removes nothing.
  CHECK_FALSE(store(cache, {4, 0}, {bytes_of(200000, 1)}));
  CHECK(files_in(folder.path()).size() == 2);
}

TEST_CASE("image cache: files of other names stay, whatever the folder's path has in it") {
  TemporaryFolder folder;
  const auto images = folder.path() / "my.images.new-things";
  const ImageCache cache({.folder = images, .bytes_max = 100000});
  REQUIRE(store(cache, {1, 0}, {bytes_of(40000, 1)}));
  const std::string key = kernels::to_string(Hash128{1, 0});
  const std::vector<std::string> foreign = {"notes.txt",
                                            "backup.images",
                                            "x.new-",
                                            key + ".imagesX",
                                            key,
                                            key + "0.images",
                                            "a" + key + ".images.new-0a"};
  const auto long_ago = std::filesystem::file_time_type::clock::now() - std::chrono::hours(9);
  for (const std::string& name : foreign) {
    std::ofstream(images / name) << std::string(30000, 'x');
    std::filesystem::last_write_time(images / name, long_ago);
  }
  // Two of ours have no room beside each other; the others do not count.
  REQUIRE(store(cache, {2, 0}, {bytes_of(80000, 1)}));
  CHECK_FALSE(std::filesystem::exists(images / (key + ".images")));
  for (const std::string& name : foreign) {
    INFO(name);
    CHECK(std::filesystem::exists(images / name));
  }
  CHECK(files_in(images).size() == foreign.size() + 1);
}

TEST_CASE("image cache: one writes at a time, and removes what a dead writer has left") {
  TemporaryFolder folder;
  const ImageCache cache({.folder = folder.path()});
  const auto left = folder.path() / (kernels::to_string(kKey) + ".images.new-01ab");
  std::ofstream(left) << "half of it";
  FileDescriptor other(::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(::flock(other.get(), LOCK_EX) == 0);
  CHECK_FALSE(store(cache, kKey, some_pieces()));
  CHECK(files_in(folder.path()) == std::vector{left});  // it may be the other's
  other.reset();
  CHECK(store(cache, kKey, some_pieces()));
  CHECK(holds(cache, kKey, some_pieces()));
  CHECK(files_in(folder.path()).size() == 1);
}

TEST_CASE("image cache: a file takes at most half of what is free, older ones make room for it") {
  TemporaryFolder folder;
  const auto with_free = [&](std::uint64_t (*free)(const std::filesystem::path&)) {
    return ImageCache({.folder = folder.path(), .free_bytes = free});
  };
  const ImageCache much = with_free([](const auto&) { return std::uint64_t{1} << 30; });
  const ImageCache little = with_free([](const auto&) { return std::uint64_t{60000}; });
  const std::vector<Bytes> large = {bytes_of(40000, 1)};  // with its header 45,056
  CHECK_FALSE(store(little, {1, 0}, large));
  CHECK(files_in(folder.path()).empty());
  REQUIRE(store(much, {1, 0}, large));
  REQUIRE(store(little, {2, 0}, large));  // the first gave its place
  CHECK(holds(much, {2, 0}, large));
  CHECK(files_in(folder.path()).size() == 1);
  CHECK_FALSE(store(little, {3, 0}, {bytes_of(120000, 1)}));
  CHECK(holds(much, {2, 0}, large));
  CHECK(free_bytes_at(folder.path()) > 0);
  CHECK(free_bytes_at(folder.path() / "nowhere") == 0);
}

TEST_CASE("image cache: without a folder, a limit or space nothing is kept and nothing is left") {
  TemporaryFolder folder;
  CHECK_FALSE(store(ImageCache({.folder = {}}), kKey, some_pieces()));
  CHECK_FALSE(store(ImageCache({.folder = folder.path(), .bytes_max = 0}), kKey, some_pieces()));
  std::ofstream(folder.path() / "file") << "in the way";
  const ImageCache blocked({.folder = folder.path() / "file" / "images"});
  CHECK_FALSE(store(blocked, kKey, some_pieces()));
  CHECK_FALSE(blocked.find(context(), kKey));

  // A file that may not grow fails as on a full disk.
  const ImageCache full({.folder = folder.path() / "full"});
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{8192, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const bool kept = store(full, kKey, some_pieces());
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK_FALSE(kept);
  CHECK(files_in(folder.path() / "full").empty());
}

namespace {

// A model in a folder, and what serving makes of it.
struct SavedModel {
  SavedModel() : decoder(*Decoder::create(description())), weights(elements(decoder)) {
    decoder.initialise(context(), 42, weights.span());
    save();
  }
  static DecoderDescription description() {
    DecoderDescription d = test::small_description();
    d.width = 64;
    d.head_dim = 16;
    d.feed_forward = 128;
    return d;
  }
  static kernels::Index elements(const Decoder& decoder) {
    return static_cast<kernels::Index>(decoder.layout().elements());
  }
  void save() const { REQUIRE(save_model(decoder, weights.span(), folder.path())); }
  std::vector<float> logits(std::string_view format, const ImageCache& cache) const {
    const auto images = ServingWeights::load(context(), decoder, format, folder.path(), cache);
    REQUIRE(images);
    const Samples samples({30}, decoder.description().vocabulary, 5);
    InferencePass pass(decoder, {.rows_max = 64, .samples_max = 1});
    KvCache pages(decoder.description(), 64);
    std::vector<float> all(samples.tokens.size() * decoder.description().vocabulary);
    const SequenceChunk chunk{&pages, samples.tokens, LogitRows::all};
    REQUIRE(pass.run(context(), *images, {&chunk, 1}, all));
    return all;
  }

  TemporaryFolder folder;
  Decoder decoder;
  kernels::FloatBuffer weights;
};

}  // namespace

TEST_CASE(
    "serving weights: from the cache they give the bits of those that are made, in all forms") {
  const SavedModel model;
  TemporaryFolder folder;
  const ImageCache cache({.folder = folder.path()});
  const ImageCache none({.folder = {}});
  std::size_t files = 0;
  for (const std::string_view format : {"fp32", "bf16", "int8", "q8_0", "q4_0", "nf4"}) {
    INFO(format);
    const auto made = model.logits(format, none);
    CHECK(model.logits(format, cache) == made);
    CHECK(files_in(folder.path()).size() == ++files);
    const auto all = files_in(folder.path());
    const auto path = *std::ranges::max_element(all, {}, [](const std::filesystem::path& file) {
      return std::filesystem::last_write_time(file);
    });
    const auto written = read_file(path);
    REQUIRE(written);
    CHECK(model.logits(format, cache) == made);
    CHECK(files_in(folder.path()).size() == files);
    CHECK(*read_file(path) == *written);
  }
}

TEST_CASE("serving weights: what comes as fp32 and what is asked for as fp32 are the same images") {
  const SavedModel model;
  TemporaryFolder folder;
  const ImageCache cache({.folder = folder.path()});
  const auto made = model.logits("auto", ImageCache({.folder = {}}));
  CHECK(model.logits("auto", cache) == made);
  CHECK(model.logits("fp32", cache) == made);
  CHECK(files_in(folder.path()).size() == 1);
}

TEST_CASE("serving weights: other weights are never served from the images of the first") {
  SavedModel model;
  TemporaryFolder folder;
  const ImageCache cache({.folder = folder.path()});
  const ImageCache none({.folder = {}});
  const auto before = model.logits("q8_0", cache);
  // The same shapes, names, size and time of change: one weight differs.
  const auto path = model.folder.path() / "model.safetensors";
  const auto time = std::filesystem::last_write_time(path);
  model.weights.span()[1234] += 0.5F;
  model.save();
  std::filesystem::last_write_time(path, time);
  const auto after = model.logits("q8_0", cache);
  CHECK(after != before);
  CHECK(after == model.logits("q8_0", none));
  CHECK(files_in(folder.path()).size() == 2);
}

TEST_CASE("serving weights: a damaged file of images is made anew") {
  const SavedModel model;
  TemporaryFolder folder;
  const ImageCache cache({.folder = folder.path()});
  const auto made = model.logits("q8_0", cache);
  damage(files_in(folder.path()).front(), 4096 * 3 + 100);
  CHECK(model.logits("q8_0", cache) == made);
  CHECK(model.logits("q8_0", cache) == made);
  CHECK(files_in(folder.path()).size() == 1);

  // A sound file with pieces of another model under this one's key.
  const auto path = files_in(folder.path()).front();
  const auto name = path.stem().string();
  const Hash128 key{std::stoull(name.substr(0, 16), nullptr, 16),
                    std::stoull(name.substr(16), nullptr, 16)};
  REQUIRE(store(cache, key, some_pieces()));
  CHECK(model.logits("q8_0", cache) == made);
}

}  // namespace tutti::models
