#include "jobs/models/safetensors.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <vector>

#include "protocol/base/file.h"
#include "protocol/base/rng.h"
#include "tests/support/temporary_folder.h"

namespace tutti::models {
namespace {

using test::TemporaryFolder;

std::string file_of(std::string_view header, std::string_view data) {
  const std::uint64_t length = header.size();
  std::string text(sizeof length, '\0');
  std::memcpy(text.data(), &length, sizeof length);
  return text.append(header).append(data);
}

void write(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

Result<SafetensorsReader> open_bytes(std::string_view bytes) {
  TemporaryFolder folder;
  write(folder.path() / "x.safetensors", bytes);
  return SafetensorsReader::open(folder.path() / "x.safetensors");
}

std::vector<float> read(const SafetensorsReader& reader, std::string_view name,
                        std::vector<std::uint64_t> shape) {
  std::vector<float> values(reader.find(name)->elements());
  REQUIRE(reader.read(name, shape, values));
  return values;
}

}  // namespace

TEST_CASE("safetensors: what is written in pieces reads back with its metadata") {
  TemporaryFolder folder;
  const auto path = folder.path() / "model.safetensors";
  const std::vector<TensorDeclaration> tensors = {{"b", TensorType::f32, {2, 3}},
                                                  {"a", TensorType::f32, {2}},
                                                  {"empty", TensorType::f32, {0, 4}}};
  auto writer = SafetensorsWriter::create(path, tensors);
  REQUIRE(writer);
  const std::vector<float> values = {1, 2, 3, 4, 5, 6, 7, 8};
  REQUIRE(writer->append(std::span(values).first(5)));
  CHECK(writer->finish().error().code == ErrorCode::internal);
  REQUIRE(writer->append(std::span(values).subspan(5)));
  const auto size = writer->finish();
  REQUIRE(size);
  CHECK(*size == std::filesystem::file_size(path));
  CHECK(SafetensorsWriter::create(path, tensors).error().code == ErrorCode::already_exists);

  const auto reader = SafetensorsReader::open_folder(folder.path());
  REQUIRE(reader);
  CHECK(reader->names() == std::vector<std::string>{"a", "b", "empty"});
  CHECK(read(*reader, "b", {2, 3}) == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(read(*reader, "a", {2}) == std::vector<float>{7, 8});
  CHECK(read(*reader, "empty", {0, 4}).empty());
  CHECK(reader->metadata() == std::map<std::string, std::string>{{"format", "pt"}});
}

TEST_CASE("safetensors: bytes read back as bytes of that length, and as no numbers") {
  TemporaryFolder folder;
  const std::vector<TensorDeclaration> tensors = {{"codes", TensorType::u8, {5}},
                                                  {"w", TensorType::f32, {1}}};
  auto writer = SafetensorsWriter::create(folder.path() / "model.safetensors", tensors);
  REQUIRE(writer);
  const auto bytes = std::as_bytes(std::span("\xff\x01\x80\x7f\xc0\0\0\0", 9));
  REQUIRE(writer->append(bytes));
  REQUIRE(writer->finish());
  const auto reader = SafetensorsReader::open_folder(folder.path());
  REQUIRE(reader);
  std::vector<std::byte> read(5);
  REQUIRE(reader->read_bytes("codes", read));
  CHECK(std::equal(read.begin(), read.end(), bytes.begin()));
  std::vector<float> numbers(5);
  const std::uint64_t shape[] = {5};
  CHECK(reader->read("codes", shape, numbers).error().code == ErrorCode::unsupported);
  CHECK(reader->read_bytes("w", std::span(read).first(4)).error().code ==
        ErrorCode::invalid_argument);
  CHECK(reader->read_bytes("codes", std::span(read).first(4)).error().code ==
        ErrorCode::invalid_argument);
  CHECK(reader->read_bytes("none", read).error().code == ErrorCode::not_found);
}

TEST_CASE("safetensors: half and bfloat16 widen exactly") {
  const std::uint16_t half[] = {0x3c00, 0xc000, 0x0001, 0x83ff, 0x7bff, 0x7c00};
  const std::uint16_t brain[] = {0x3f80, 0xc049};
  std::string data(reinterpret_cast<const char*>(half), sizeof half);
  data.append(reinterpret_cast<const char*>(brain), sizeof brain);
  const auto reader =
      open_bytes(file_of(R"({"h":{"dtype":"F16","shape":[6],"data_offsets":[0,12]},)"
                         R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]}})",
                         data));
  REQUIRE(reader);
  CHECK(read(*reader, "h", {6}) ==
        std::vector<float>{1.0F, -2.0F, 0x1p-24F, -1023 * 0x1p-24F, 65504.0F, HUGE_VALF});
  CHECK(read(*reader, "b", {2}) == std::vector<float>{1.0F, -3.140625F});
}

TEST_CASE("safetensors: a missing tensor and a wrong shape are named, with both shapes") {
  const auto reader =
      open_bytes(file_of(R"({"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
                         R"("n":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}})",
                         std::string(16, '\0')));
  REQUIRE(reader);
  std::vector<float> out(2, 5.0F);
  const std::vector<std::uint64_t> wanted = {2, 1};
  const auto missing = reader->read("v", wanted, out);
  CHECK(missing.error().code == ErrorCode::not_found);
  CHECK(missing.error().message.find("tensor `v` is missing") != std::string::npos);
  const auto shaped = reader->read("w", wanted, out);
  CHECK(shaped.error().code == ErrorCode::invalid_argument);
  CHECK(shaped.error().message.find("tensor `w` has the shape [1, 2], not [2, 1]") !=
        std::string::npos);
  const std::vector<std::uint64_t> one = {1};
  CHECK(reader->read("n", one, std::span(out).first(1)).error().code == ErrorCode::unsupported);
  CHECK(out == std::vector<float>{5.0F, 5.0F});
}

TEST_CASE("safetensors: headers that do not check are corrupt") {
  const std::string data(8, '\0');
  const auto code = [&](std::string_view header) {
    const auto opened = open_bytes(file_of(header, data));
    REQUIRE_FALSE(opened);
    return opened.error().code;
  };
  const auto entry = [](std::string_view shape, std::string_view range) {
    return R"({"w":{"dtype":"F32","shape":)" + std::string(shape) + R"(,"data_offsets":)" +
           std::string(range) + "}}";
  };
  REQUIRE(open_bytes(file_of(entry("[2]", "[0,8]"), data)));
  for (const auto& header :
       {entry("[2]", "[0,9]"), entry("[2]", "[4,8]"), entry("[2]", "[8,0]"), entry("[2]", "[-8,0]"),
        entry("[1]", "[0,4]"), entry("[1]", "[4,8]"), entry("[2.5]", "[0,8]"), entry("2", "[0,8]"),
        entry("[2]", "[0,8,8]"), entry("[4611686018427387904,4]", "[0,8]"),
        std::string(R"({"w":{"dtype":"F4","shape":[2],"data_offsets":[0,8]}})"),
        std::string(R"({"w":{"shape":[2],"data_offsets":[0,8]}})"), std::string(R"({"w":[]})"),
        std::string("[]"), std::string("{"), std::string("{}"),
        std::string(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                    R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"),
        std::string(R"({"__metadata__":{"a":1},"w":{"dtype":"F32","shape":[2],)"
                    R"("data_offsets":[0,8]}})")}) {
    INFO(header);
    CHECK(code(header) == ErrorCode::corrupt);
  }
  CHECK(open_bytes("short").error().code == ErrorCode::corrupt);
  CHECK(open_bytes(std::string(16, '\xff')).error().code == ErrorCode::corrupt);
}

TEST_CASE("safetensors: a file cut short at any byte is corrupt, and damage never reads outside") {
  TemporaryFolder folder;
  const auto path = folder.path() / "whole.safetensors";
  const std::vector<TensorDeclaration> tensors = {{"w", TensorType::f32, {3}}};
  auto writer = SafetensorsWriter::create(path, tensors);
  REQUIRE(writer);
  REQUIRE(writer->append(std::vector<float>{1, 2, 3}));
  REQUIRE(writer->finish());
  const std::string whole = *read_file(path);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CHECK(open_bytes(whole.substr(0, size)).error().code == ErrorCode::corrupt);
  }
  Rng rng(7);
  for (int round = 0; round < 300; ++round) {
    std::string damaged = whole;
    damaged[rng.below(damaged.size())] = static_cast<char>(rng.next());
    const auto reader = open_bytes(damaged);
    if (!reader) continue;
    for (const auto& name : reader->names()) {
      const TensorView* tensor = reader->find(name);
      std::vector<float> out(tensor->elements());
      const bool numbers = tensor->type == TensorType::f32 || tensor->type == TensorType::bf16 ||
                           tensor->type == TensorType::f16;
      CHECK(reader->read(name, tensor->shape, out).ok() == numbers);
    }
  }
}

TEST_CASE("safetensors: a model in several files is read through its index") {
  TemporaryFolder folder;
  const auto add = [&](std::string_view file, std::string_view tensor, float value) {
    const std::vector<TensorDeclaration> one = {{std::string(tensor), TensorType::f32, {1}}};
    auto writer = SafetensorsWriter::create(folder.path() / file, one);
    REQUIRE(writer);
    REQUIRE(writer->append(std::span(&value, 1)));
    REQUIRE(writer->finish());
  };
  const auto index = folder.path() / "model.safetensors.index.json";
  CHECK(SafetensorsReader::open_folder(folder.path()).error().code == ErrorCode::not_found);
  add("one.safetensors", "a", 1);
  add("two.safetensors", "b", 2);
  write(index, to_index_json({{"a", "one.safetensors"}, {"b", "two.safetensors"}}, 8));
  const auto reader = SafetensorsReader::open_folder(folder.path());
  REQUIRE(reader);
  CHECK(read(*reader, "a", {1}) == std::vector<float>{1});
  CHECK(read(*reader, "b", {1}) == std::vector<float>{2});

  write(index, to_index_json({{"a", "two.safetensors"}}, 4));
  CHECK(SafetensorsReader::open_folder(folder.path())
            .error()
            .message.find("tensor `a` of the index is missing") != std::string::npos);
  write(index, to_index_json({{"a", "three.safetensors"}}, 4));
  CHECK(SafetensorsReader::open_folder(folder.path()).error().code == ErrorCode::not_found);
  write(index, to_index_json({{"a", "../one.safetensors"}}, 4));
  CHECK(SafetensorsReader::open_folder(folder.path()).error().code == ErrorCode::corrupt);
}

}  // namespace tutti::models
