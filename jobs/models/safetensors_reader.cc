#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <set>

#include "jobs/models/safetensors.h"

namespace tutti::models {

namespace json = boost::json;
using std::filesystem::path;

namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kIndexBytesMax = std::uint64_t{64} << 20;

struct TypeRow {
  std::string_view name;
  std::uint64_t bytes;
  TensorType type;
};
constexpr std::array kTypes = {
    TypeRow{"F32", 4, TensorType::f32},         TypeRow{"BF16", 2, TensorType::bf16},
    TypeRow{"F16", 2, TensorType::f16},         TypeRow{"F64", 8, TensorType::other},
    TypeRow{"I64", 8, TensorType::other},       TypeRow{"U64", 8, TensorType::other},
    TypeRow{"I32", 4, TensorType::i32},         TypeRow{"U32", 4, TensorType::other},
    TypeRow{"I16", 2, TensorType::other},       TypeRow{"U16", 2, TensorType::other},
    TypeRow{"I8", 1, TensorType::other},        TypeRow{"U8", 1, TensorType::u8},
    TypeRow{"BOOL", 1, TensorType::other},      TypeRow{"F8_E4M3", 1, TensorType::f8_e4m3},
    TypeRow{"F8_E5M2", 1, TensorType::f8_e5m2}, TypeRow{"F8_E8M0", 1, TensorType::other}};

class Mapping {
 public:
  Mapping() = default;
  Mapping(void* data, std::size_t bytes) : data_(data), bytes_(bytes) {}
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(data_), bytes_};
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

Error corrupt(const path& file, std::string_view what) {
  return Error{ErrorCode::corrupt, fmt::format("{}: {}", file.string(), what)};
}

Result<Mapping> map_file(const path& file) {
  const FileDescriptor descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!descriptor) return errno_error("cannot open " + file.string(), errno);
  struct stat status {};
  if (::fstat(descriptor.get(), &status) != 0) {
    return errno_error("cannot read " + file.string(), errno);
  }
  if (!S_ISREG(status.st_mode) || status.st_size < static_cast<off_t>(kLengthBytes)) {
    return corrupt(file, "not a safetensors file: too short");
  }
  const auto bytes = static_cast<std::size_t>(status.st_size);
  void* data = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
  if (data == MAP_FAILED) return errno_error("cannot map " + file.string(), errno);
  return Mapping(data, bytes);
}

bool read_unsigned(const json::value& value, std::uint64_t& number) {
  if (!value.is_int64() || value.get_int64() < 0) return false;
  number = static_cast<std::uint64_t>(value.get_int64());
  return true;
}

// One header entry, checked against the size of the data part. Empty text: it holds.
std::string read_entry(const json::value& value, std::span<const std::byte> data,
                       TensorView& tensor) {
  const json::object* entry = value.if_object();
  const json::value* type = entry == nullptr ? nullptr : entry->if_contains("dtype");
  const json::value* shape = entry == nullptr ? nullptr : entry->if_contains("shape");
  const json::value* range = entry == nullptr ? nullptr : entry->if_contains("data_offsets");
  if (type == nullptr || !type->is_string() || shape == nullptr || !shape->is_array() ||
      range == nullptr || !range->is_array() || range->get_array().size() != 2) {
    return "lacks dtype, shape or data_offsets";
  }
  const std::string_view type_name = type->get_string();
  const auto* row = std::find_if(kTypes.begin(), kTypes.end(),
                                 [&](const TypeRow& known) { return known.name == type_name; });
  if (row == kTypes.end()) return fmt::format("has the unknown dtype `{}`", type_name);
  tensor.type = row->type;

  std::uint64_t bytes = row->bytes;
  for (const json::value& item : shape->get_array()) {
    std::uint64_t extent = 0;
    if (!read_unsigned(item, extent)) return "has a shape that is not of whole numbers";
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return "has a shape beyond 64 bits";
    tensor.shape.push_back(extent);
  }
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  if (!read_unsigned(range->get_array()[0], begin) || !read_unsigned(range->get_array()[1], end) ||
      begin > end || end > data.size()) {
    return fmt::format("lies outside the file's {} data bytes: the file is cut short or damaged",
                       data.size());
  }
  if (end - begin != bytes) {
    return fmt::format("has {} bytes where {} {} needs {}", end - begin, type_name,
                       to_string(tensor.shape), bytes);
  }
  tensor.bytes = data.subspan(begin, end - begin);
  return {};
}

struct File {
  Mapping mapping;
  std::map<std::string, TensorView, std::less<>> tensors;
  std::map<std::string, std::string> metadata;
};

// No two tensors share bytes and no byte is without a tensor, as the format asks.
Result<> check_coverage(const path& name, const File& file, std::span<const std::byte> data) {
  std::vector<std::span<const std::byte>> pieces;
  for (const auto& [_, tensor] : file.tensors) {
    if (!tensor.bytes.empty()) pieces.push_back(tensor.bytes);
  }
  std::sort(pieces.begin(), pieces.end(),
            [](const auto& a, const auto& b) { return a.data() < b.data(); });
  const std::byte* at = data.data();
  for (const auto& piece : pieces) {
    if (piece.data() != at) return corrupt(name, "tensors overlap or leave a gap");
    at += piece.size();
  }
  if (at != data.data() + data.size()) return corrupt(name, "bytes behind the last tensor");
  return {};
}

Result<> read_metadata(const path& name, const json::value& value, File& file) {
  if (!value.is_object()) return corrupt(name, "__metadata__ is not an object");
  for (const auto& [key, item] : value.get_object()) {
    if (!item.is_string()) return corrupt(name, "__metadata__ holds more than text");
    file.metadata.emplace(key, item.get_string());
  }
  return {};
}

Result<File> read_header(const path& name, Mapping mapping) {
  const auto bytes = mapping.bytes();
  std::uint64_t length = 0;
  static_assert(std::endian::native == std::endian::little);
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kSafetensorsHeaderBytesMax || length > bytes.size() - kLengthBytes) {
    return corrupt(name, fmt::format("a header of {} bytes does not fit into a file of {}", length,
                                     bytes.size()));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  boost::system::error_code failed;
  const json::value header = json::parse(text, failed);
  if (failed || !header.is_object()) return corrupt(name, "the header is not a JSON object");

  const auto data = bytes.subspan(kLengthBytes + length);
  File file{std::move(mapping), {}, {}};
  for (const auto& [key, value] : header.get_object()) {
    if (key == "__metadata__") {
      if (auto read = read_metadata(name, value, file); !read) return read.error();
      continue;
    }
    TensorView tensor;
    if (const std::string wrong = read_entry(value, data, tensor); !wrong.empty()) {
      return corrupt(name, fmt::format("tensor `{}` {}", std::string_view(key), wrong));
    }
    file.tensors.emplace(key, std::move(tensor));
  }
  if (auto covered = check_coverage(name, file, data); !covered) return covered.error();
  return file;
}

Result<File> open_file(const path& name) {
  auto mapping = map_file(name);
  if (!mapping) return mapping.error();
  return read_header(name, *std::move(mapping));
}

float widen_half(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t{half & 0x8000u} << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t fraction = half & 0x3ffu;
  if (exponent == 0) {
    // Zero and subnormals: the fraction counts units of 2^-24, exact in fp32.
    const float magnitude = static_cast<float>(fraction) * 0x1.0p-24f;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  const std::uint32_t widened = exponent == 31 ? 0xffu : exponent + 112;  // bias 127 - 15
  return std::bit_cast<float>(sign | (widened << 23) | (fraction << 13));
}

void widen(const TensorView& tensor, std::span<float> out) {
  if (tensor.type == TensorType::f32) {
    if (!out.empty()) std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
    return;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t narrow = 0;
    std::memcpy(&narrow, tensor.bytes.data() + i * sizeof narrow, sizeof narrow);
    out[i] = tensor.type == TensorType::bf16 ? std::bit_cast<float>(std::uint32_t{narrow} << 16)
                                             : widen_half(narrow);
  }
}

// tensor -> file, from the index of a model in several files.
Result<std::map<std::string, std::string>> read_index(const path& index) {
  auto text = read_file(index, kIndexBytesMax);
  if (!text) return text.error();
  boost::system::error_code failed;
  const json::value parsed = json::parse(*text, failed);
  const json::value* map =
      !failed && parsed.is_object() ? parsed.get_object().if_contains("weight_map") : nullptr;
  if (map == nullptr || !map->is_object()) return corrupt(index, "no `weight_map`");
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : map->get_object()) {
    // A plain name: an index must not point out of its folder.
    if (!file.is_string() || file.get_string().empty() ||
        file.get_string().find('/') != json::string::npos) {
      return corrupt(index,
                     fmt::format("tensor `{}` has no plain file name", std::string_view(tensor)));
    }
    files.emplace(tensor, file.get_string());
  }
  return files;
}

}  // namespace

struct SafetensorsReader::Impl {
  path name;
  std::vector<File> files;
  std::map<std::string, const TensorView*, std::less<>> tensors;
  std::map<std::string, std::string> metadata;

  void add(File file) {
    if (files.empty()) metadata = file.metadata;
    files.push_back(std::move(file));
    for (const auto& [tensor_name, tensor] : files.back().tensors) tensors[tensor_name] = &tensor;
  }
};

SafetensorsReader::SafetensorsReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SafetensorsReader::SafetensorsReader(SafetensorsReader&&) noexcept = default;
SafetensorsReader& SafetensorsReader::operator=(SafetensorsReader&&) noexcept = default;
SafetensorsReader::~SafetensorsReader() = default;

Result<SafetensorsReader> SafetensorsReader::open(const path& name) {
  auto file = open_file(name);
  if (!file) return file.error();
  auto impl = std::make_unique<Impl>();
  impl->name = name;
  impl->add(*std::move(file));
  return SafetensorsReader(std::move(impl));
}

Result<SafetensorsReader> SafetensorsReader::open_folder(const path& folder) {
  std::error_code ignored;
  const path single = folder / "model.safetensors";
  if (std::filesystem::exists(single, ignored)) return open(single);
  const path index = folder / "model.safetensors.index.json";
  if (!std::filesystem::exists(index, ignored)) {
    return Error{ErrorCode::not_found,
                 fmt::format("{}: neither model.safetensors nor model.safetensors.index.json",
                             folder.string())};
  }
  auto map = read_index(index);
  if (!map) return map.error();
  std::set<std::string> names;
  for (const auto& [_, file] : *map) names.insert(file);

  auto impl = std::make_unique<Impl>();
  impl->name = folder;
  for (const auto& name : names) {
    auto file = open_file(folder / name);
    if (!file) return file.error();
    for (const auto& [tensor, wanted] : *map) {
      if (wanted == name && file->tensors.count(tensor) == 0) {
        return corrupt(folder / name, fmt::format("tensor `{}` of the index is missing", tensor));
      }
    }
    impl->add(*std::move(file));
  }
  return SafetensorsReader(std::move(impl));
}

std::vector<std::string> SafetensorsReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, _] : impl_->tensors) names.push_back(name);
  return names;
}

const TensorView* SafetensorsReader::find(std::string_view name) const {
  const auto found = impl_->tensors.find(name);
  return found == impl_->tensors.end() ? nullptr : found->second;
}

const std::map<std::string, std::string>& SafetensorsReader::metadata() const {
  return impl_->metadata;
}

Result<> SafetensorsReader::read(std::string_view name, std::span<const std::uint64_t> shape,
                                 std::span<float> out) const {
  const TensorView* tensor = find(name);
  if (tensor == nullptr) {
    return Error{ErrorCode::not_found,
                 fmt::format("{}: tensor `{}` is missing", impl_->name.string(), name)};
  }
  if (!std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end())) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("{}: tensor `{}` has the shape {}, not {}", impl_->name.string(), name,
                             to_string(tensor->shape), to_string(shape))};
  }
  if (tensor->type != TensorType::f32 && tensor->type != TensorType::bf16 &&
      tensor->type != TensorType::f16) {
    return Error{ErrorCode::unsupported,
                 fmt::format("{}: tensor `{}` has a dtype other than F32, BF16 and F16: {}",
                             impl_->name.string(), name, to_string(tensor->type))};
  }
  TUTTI_ASSERT(out.size() == tensor->elements());
  widen(*tensor, out);
  return {};
}

Result<> SafetensorsReader::read_bytes(std::string_view name, std::span<std::byte> out) const {
  const TensorView* tensor = find(name);
  if (tensor == nullptr) {
    return Error{ErrorCode::not_found,
                 fmt::format("{}: tensor `{}` is missing", impl_->name.string(), name)};
  }
  if (tensor->type != TensorType::u8 || tensor->bytes.size() != out.size()) {
    return Error{
        ErrorCode::invalid_argument,
        fmt::format("{}: tensor `{}` is {} bytes of {}, not {} of U8", impl_->name.string(), name,
                    tensor->bytes.size(), to_string(tensor->type), out.size())};
  }
  std::copy(tensor->bytes.begin(), tensor->bytes.end(), out.begin());
  return {};
}

std::uint64_t TensorView::elements() const {
  std::uint64_t elements = 1;
  for (const std::uint64_t extent : shape) elements *= extent;
  return elements;
}

}  // namespace tutti::models
