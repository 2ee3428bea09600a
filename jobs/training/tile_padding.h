// What part of a model's products is padding: outputs that a device computes because it computes
// whole tiles, and that nobody reads.
//
// On a CPU a tile ends at any vector, so little is lost. On a GPU a thread block computes a tile of
// outputs, and rows that do not begin at 16 bytes are read and written in smaller pieces besides;
// there the vocabulary is the size that a model's maker did not choose by tiles, and
// `train.pad_vocabulary` lays its rows so (decision 0042).
//
// Threads: plain functions. Units: numbers of a row.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "jobs/models/description.h"

namespace tutti::training {

struct ProductTiles {
  std::string device;
  std::uint32_t outputs = 1;   // that are computed together
  std::uint32_t row_unit = 1;  // rows of a multiple of these begin where a device wants them
};
// Of the instruction set in use.
ProductTiles cpu_tiles();
// Of a GPU whose products take inputs of this many bytes. What cuBLASLt chooses it says to nobody
// before a product is there: the outputs are those of the usual block tile of tensor cores.
ProductTiles gpu_tiles(std::uint32_t input_bytes);

struct TilePadding {
  struct Size {
    std::string name;
    std::uint32_t size = 0;
    std::uint32_t rows = 0;      // in memory; more than the size where these are padded
    std::uint32_t computed = 0;  // whole tiles
    bool aligned = true;         // rows of so many begin where the device wants them

    double share() const { return 1.0 - static_cast<double>(size) / computed; }
    bool is_whole() const { return computed == size && aligned; }
  };
  ProductTiles tiles;
  std::vector<Size> sizes;
  double share = 0;  // of all multiplications of a token's forward products

  // For people: the share in all, then a line for each size that is not whole.
  std::vector<std::string> lines() const;
};
TilePadding tile_padding(const models::DecoderDescription& description, const ProductTiles& tiles);

}  // namespace tutti::training
