// Writes model folders whose matrices are in few bits, by what the layouts' public descriptions say
// and not by the code that reads them, with the values that a reader must find in them.
#pragma once

#include <bit>
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "jobs/models/decoder.h"
#include "jobs/models/inference_pass.h"
#include "jobs/models/safetensors.h"
#include "jobs/models/serving_weights.h"
#include "jobs/models/stored/stored_parameters.h"
#include "kernels/tensor/op_counters.h"
#include "protocol/base/file.h"
#include "protocol/base/rng.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/models/small_model.h"

namespace tutti::test {

using Bytes = std::vector<std::byte>;

template <class Number>
void put(Bytes& bytes, Number number) {
  const auto* const from = reinterpret_cast<const std::byte*>(&number);
  bytes.insert(bytes.end(), from, from + sizeof number);
}

struct StoredTensor {
  models::TensorDeclaration declared;
  Bytes bytes;
};

// A matrix [outputs, inputs]: its tensors, and its values as fp32 has them.
struct StoredExample {
  std::vector<StoredTensor> tensors;
  std::vector<float> values;
};
using MatrixWriter = std::function<StoredExample(const std::string& name, std::uint64_t outputs,
                                                 std::uint64_t inputs, Rng& rng)>;

// Matrices of layers as `writer` makes them, everything else plain. `values` has the arena that a
// reader must find.
struct StoredModel {
  StoredModel(const models::DecoderDescription& description, std::string quantization_config,
              const MatrixWriter& writer)
      : decoder(*models::Decoder::create(description)),
        values(static_cast<kernels::Index>(decoder.layout().elements())),
        quantization(std::move(quantization_config)) {
    kernels::ThreadPool pool(1);
    decoder.initialise({&pool}, 42, values.span());
    Rng rng(11);
    for (const models::Parameter& parameter : decoder.layout().parameters()) {
      const auto mine = values.span().subspan(parameter.offset, parameter.elements);
      const bool matrix =
          parameter.shape.size() == 2 && parameter.name.find("layers") != std::string::npos;
      if (!matrix) {
        StoredTensor plain{{parameter.name, models::TensorType::f32, parameter.shape}, {}};
        for (const float value : mine) put(plain.bytes, value);
        tensors.push_back(std::move(plain));
        continue;
      }
      StoredExample example = writer(parameter.name, parameter.shape[0], parameter.shape[1], rng);
      REQUIRE(example.values.size() == mine.size());
      std::copy(example.values.begin(), example.values.end(), mine.begin());
      for (StoredTensor& tensor : example.tensors) tensors.push_back(std::move(tensor));
    }
  }

  void write(const std::filesystem::path& folder) const {
    std::vector<models::TensorDeclaration> declared;
    for (const StoredTensor& tensor : tensors) declared.push_back(tensor.declared);
    auto writer = models::SafetensorsWriter::create(folder / "model.safetensors", declared);
    REQUIRE(writer);
    for (const StoredTensor& tensor : tensors) REQUIRE(writer->append(std::span(tensor.bytes)));
    REQUIRE(writer->finish());
    std::string config = models::to_config_json(decoder.description());
    config.resize(config.rfind('}'));
    config += ", \"quantization_config\": " + quantization + "}";
    REQUIRE(write_file_atomically(folder / "config.json", config));
  }
  // The tensor whose name ends so.
  StoredTensor& tensor(const std::string& end) {
    for (StoredTensor& each : tensors) {
      if (each.declared.name.ends_with(end)) return each;
    }
    FAIL("no tensor " << end);
    return tensors.front();
  }

  models::Decoder decoder;
  kernels::FloatBuffer values;
  std::vector<StoredTensor> tensors;
  std::string quantization;
};

using models::Decoder;
using models::DecoderDescription;
using models::ImageCache;
using models::InferencePass;
using models::KvCache;
using models::LogitRows;
using models::Parameter;
using models::SequenceChunk;
using models::ServingWeights;

// Inputs of 160 and 288, outputs of 32, 160 and 288: blocks of 128 end short both ways.
inline DecoderDescription stored_description() {
  DecoderDescription d = small_description("llama");
  d.width = 160;
  d.heads = 5;
  d.kv_heads = 1;
  d.head_dim = 32;
  d.feed_forward = 288;
  d.tied = false;
  return d;
}

inline std::vector<float> logits(const Decoder& decoder, const ServingWeights& images,
                                 std::size_t chunk) {
  kernels::ThreadPool pool(2);
  const Samples samples({24}, decoder.description().vocabulary, 5);
  InferencePass pass(decoder, {.rows_max = 64, .samples_max = 1});
  KvCache cache(decoder.description(), 64);
  const std::size_t width = decoder.description().vocabulary;
  std::vector<float> all(samples.tokens.size() * width);
  for (std::size_t at = 0; at < samples.tokens.size(); at += chunk) {
    const auto part =
        std::span(samples.tokens).subspan(at, std::min(chunk, samples.tokens.size() - at));
    const SequenceChunk one{&cache, part, LogitRows::all};
    REQUIRE(pass.run({&pool}, images, {&one, 1},
                     std::span(all).subspan(at * width, part.size() * width)));
  }
  return all;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// Ops that this process has called, besides the hashes that a key takes.
inline std::int64_t calls_of_ops() {
  std::int64_t calls = 0;
  for (const kernels::OpCount& count : kernels::op_counts()) {
    if (count.name != "hash_blocks") calls += count.calls;
  }
  return calls;
}

// A start of a server of the folder's codes.
struct Start {
  ServingWeights images;
  std::int64_t ops;  // by which images were made
};
inline Start start(const Decoder& decoder, const std::filesystem::path& folder,
                   const ImageCache& cache) {
  kernels::ThreadPool pool(2);
  const std::int64_t before = calls_of_ops();
  auto images = ServingWeights::load({&pool}, decoder, "auto", folder, cache);
  if (!images) FAIL(images.error().message);
  return {*std::move(images), calls_of_ops() - before};
}

// Of files in the folder, by name.
inline std::map<std::string, std::string> contents_of(const std::filesystem::path& folder) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    contents[entry.path().filename()] = *read_file(entry.path());
  }
  return contents;
}

// Starts twice by one cache: the first start keeps its images, the second makes none.
inline void require_kept(const Decoder& decoder, const std::filesystem::path& folder,
                         std::span<const float> expected) {
  const TemporaryFolder kept;
  const ImageCache cache({.folder = kept.path()});
  const Start first = start(decoder, folder, cache);
  CHECK(first.ops > 0);
  const auto written = contents_of(kept.path());
  REQUIRE(written.size() == 1);
  const Start second = start(decoder, folder, cache);
  CHECK(second.ops == 0);
  CHECK(contents_of(kept.path()) == written);
  CHECK(second.images.bytes() == first.images.bytes());
  CHECK(same_bits(logits(decoder, first.images, 24), expected));
  for (const std::size_t chunk : {1U, 24U}) {
    CHECK(same_bits(logits(decoder, second.images, chunk), expected));
  }
}

// The model with a bit of this tensor's another: it is served from images of its own.
inline void require_own_images(StoredModel model, const std::string& tensor, std::size_t bit) {
  INFO(tensor);
  const TemporaryFolder folder;
  const TemporaryFolder kept;
  const ImageCache cache({.folder = kept.path()});
  model.write(folder.path());
  const auto before = logits(model.decoder, start(model.decoder, folder.path(), cache).images, 24);
  model.tensor(tensor).bytes.at(bit / 8) ^= std::byte{1} << (bit % 8);
  // The same names, shapes, size and time of change.
  const auto path = folder.path() / "model.safetensors";
  const auto time = std::filesystem::last_write_time(path);
  std::filesystem::remove(path);
  model.write(folder.path());
  std::filesystem::last_write_time(path, time);
  const Start changed = start(model.decoder, folder.path(), cache);
  CHECK(changed.ops > 0);
  CHECK(contents_of(kept.path()).size() == 2);
  const auto after = logits(model.decoder, changed.images, 24);
  CHECK_FALSE(same_bits(after, before));
  const ImageCache nothing(ImageCache::Options{});
  const Start afresh = start(model.decoder, folder.path(), nothing);
  CHECK(same_bits(after, logits(model.decoder, afresh.images, 24)));
  CHECK(start(model.decoder, folder.path(), cache).ops == 0);
}

// Of all rows that are read of the model's codes.
inline std::string hash_of_rows(const StoredModel& model) {
  const TemporaryFolder folder;
  model.write(folder.path());
  const auto stored = models::StoredParameters::open(folder.path(), model.decoder);
  REQUIRE(stored);
  kernels::ThreadPool pool(1);
  std::vector<kernels::Hash128> hashes;
  for (const Parameter& parameter : model.decoder.layout().parameters()) {
    const auto matrix = stored->matrix(parameter);
    REQUIRE(matrix);
    if (*matrix == nullptr) continue;
    Bytes rows((*matrix)->row_bytes() * static_cast<std::size_t>((*matrix)->outputs()));
    (*matrix)->read_rows(0, (*matrix)->outputs(), rows);
    hashes.push_back(models::hash_bytes({&pool}, rows));
  }
  CHECK(hashes.size() == 14);
  return kernels::to_string(kernels::combine_hashes(hashes));
}

// Reads the folder as training does and as serving does. Gives what a server of its codes takes.
inline std::uint64_t require_read(const StoredModel& model) {
  const TemporaryFolder folder;
  model.write(folder.path());
  const auto loaded = models::load_model(folder.path());
  REQUIRE(loaded);
  for (const Parameter& parameter : model.decoder.layout().parameters()) {
    INFO(parameter.name);
    REQUIRE(
        same_bits(std::span(loaded->weights.span()).subspan(parameter.offset, parameter.elements),
                  std::span(model.values.span()).subspan(parameter.offset, parameter.elements)));
  }
  kernels::ThreadPool pool(2);
  const ImageCache nothing(ImageCache::Options{});
  const auto fp32 = ServingWeights::from({&pool}, model.decoder, "fp32", model.values.span());
  const auto codes = ServingWeights::load({&pool}, loaded->decoder, "auto", folder.path(), nothing);
  if (!codes) FAIL(codes.error().message);
  const auto expected = logits(model.decoder, *fp32, 24);
  for (const std::size_t chunk : {1U, 3U, 24U}) {
    CHECK(same_bits(logits(loaded->decoder, *codes, chunk), expected));
  }
  require_kept(loaded->decoder, folder.path(), expected);
  // A matrix that was read otherwise shows.
  const auto other = ServingWeights::from({&pool}, model.decoder, "nf4", model.values.span());
  if (other) CHECK_FALSE(same_bits(logits(model.decoder, *other, 24), expected));
  CHECK(codes->bytes() < fp32->bytes());
  const auto on_device = ServingWeights::device_bytes(loaded->decoder, "auto", folder.path());
  REQUIRE(on_device);
  CHECK(*on_device < *ServingWeights::device_bytes(loaded->decoder, "fp32"));
  return codes->bytes();
}

// What the folder is refused with.
inline Error refusal(const StoredModel& model) {
  const TemporaryFolder folder;
  model.write(folder.path());
  auto loaded = models::load_model(folder.path());
  if (loaded) FAIL("it was read");
  return loaded.error();
}

inline bool says(const Error& error, std::string_view text) {
  INFO(error.message);
  const bool found = error.message.find(text) != std::string::npos;
  CHECK(found);
  return found;
}

}  // namespace tutti::test
