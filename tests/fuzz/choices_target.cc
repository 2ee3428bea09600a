// Which algorithm each product takes, as a peer or a checkpoint says it. Of the library only its
// types are needed: those of the emulation.
#include "kernels/cuda/product_choices.h"
#include "tests/fuzz/targets.h"

namespace tutti::fuzz {

namespace {

using kernels::cuda::ProductChoices;
using kernels::cuda::ProductInputs;

// Of what is taken from the table these are asked for; what it has not is refused.
constexpr kernels::Index kRows[] = {4096, 64};

std::string taken_from(ProductChoices& choices) {
  for (const kernels::Index rows : kRows) {
    const ProductChoices::Key key{
        kernels::ProductForm{}, ProductInputs::bf16, rows, 1024, {16, 16, 16}};
    static_cast<void>(choices.take(key, []() -> Result<cublasLtMatmulAlgo_t> {
      return Error{ErrorCode::not_found, "it is not in the table"};
    }));
  }
  return choices.used();
}

}  // namespace

bool take_product_choices(std::string_view bytes) {
  ProductChoices choices;
  if (!choices.adopt(std::string(bytes))) return false;
  const std::string used = taken_from(choices);
  ProductChoices other;
  require(other.adopt(used).ok(), "what was used is no table");
  require(taken_from(other) == used && other.hash() == choices.hash(), "a table changes");
  return !used.empty();
}

std::vector<std::string> product_choices_seeds() {
  return {"0 1 4096 1024 16 16 16 7475 1 0 0 0 0 0 0\n",
          "0 1 4096 1024 16 16 16 7475 1 0 0 0 0 0 0\n0 1 64 1024 16 16 16 ffffffffffffffff 0 0 0 "
          "0 0 0 1\n",
          "0 1 4096 1024 16 16 16 7475 1 0 0 0 0 0 0\n0 1 4096 1024 16 16 16 1 1 0 0 0 0 0 0\n",
          "3 1 4096 1024 16 16 16 7475 1 0 0 0 0 0 0\n",
          "0 1 -1 0 0 7475 1 0 0 0 0 0 0\n",
          "0 1 4096 1024 16 16 16 7475 1 0 0 0 0 0\n",
          "0 1 4096 1024 16 16 16 7475 1 0 0 0 0 0 0 0\n",
          ""};
}

}  // namespace tutti::fuzz
